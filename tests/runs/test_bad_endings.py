"""However badly a task ends: it costs one attempt, the error is clear, and no neighbour notices."""

from __future__ import annotations

import asyncio
import ctypes
import os
import re
import resource
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from asyncflow import Engine, FlowSpec, Parameter, Run, current, events, retry, step, timeout
from asyncflow.errors import ArtifactError, RunFailedError
from asyncflow.flow.constants import constants_of
from asyncflow.testing import Loopback
from tests.support.command_line import own_frames
from tests.support.flows import Hiding, Linear, Wide


class UnpicklableError(Exception):
    """Holds what no pickle can hold."""

    def __init__(self):
        super().__init__("cannot be pickled")
        self.lock = threading.Lock()


class StubbornError(Exception):
    """Cannot even be looked at."""

    def __str__(self):
        raise RuntimeError

    __repr__ = __str__


class UnreducibleError(Exception):
    """Raises when it is pickled."""

    def __reduce__(self):
        raise RuntimeError


class NamelessError(Exception):
    """Its module is no text."""


setattr(NamelessError, "__module__", 7)  # noqa: B010 - what a metaclass may do by accident


class HiddenError(Exception, metaclass=Hiding):
    """Cannot be asked for its name."""


class HalfError(Exception):
    """Its name is no text that could be stored."""


HalfError.__qualname__ = "Half\udcffError"
HalfError.__module__ = "half\ud800module"


class HiddenTextError(Exception):
    """Has a text that raises what cannot be asked for its name."""

    def __str__(self):
        raise HiddenError


class Unreducible:
    """A value that raises when it is pickled."""

    def __reduce__(self):
        message = "not me"
        raise RuntimeError(message)


def overflow():
    """Recurse through C, as deep as the stack is."""

    class Deep:
        def __getattr__(self, name):
            return getattr(self, name)

    sys.setrecursionlimit(1 << 30)
    print(Deep().anything)


def run_out_of_memory():
    """Allocate until the process may not have more."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(
        resource.RLIMIT_AS, (psutil.Process().memory_info().vms + (1 << 26), before[1])
    )
    try:
        taken = []
        while True:
            taken.append(bytearray(1 << 20))
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def raise_(error):
    """Raise, as an expression."""
    raise error


def fork_and_return():
    """Fork, and come back twice."""
    if os.fork() == 0:
        return
    os.wait()
    raise LookupError


def fork_and_exit():
    """Fork, and have the child leave as programs do."""
    if os.fork() == 0:
        sys.exit(3)
    _, status = os.wait()
    raise LookupError(os.waitstatus_to_exitcode(status))


class ForkingError(Exception):
    """Forks whenever its text is wanted, and has its child come back as well."""

    def __str__(self) -> str:
        """The text of one process of the two."""
        if os.fork() == 0:
            return "child"
        os.wait()
        return "parent"


GROUP = ExceptionGroup("several", [ValueError("one"), ExceptionGroup("inner", [KeyError("two")])])

WAYS = {
    "unpicklable": (lambda: raise_(UnpicklableError()), r"UnpicklableError", "cannot be pickled"),
    "no text": (lambda: raise_(StubbornError()), r"StubbornError", "__str__ raised RuntimeError"),
    "no reduce": (lambda: raise_(UnreducibleError("x")), r"UnreducibleError", "x"),
    "no module": (lambda: raise_(NamelessError("y")), r"7.NamelessError", "y"),
    "half a name": (lambda: raise_(HalfError("z")), r"^half\\ud800module.Half\\udcffError$", "z"),
    "hidden name": (lambda: raise_(HiddenError("h")), r"HiddenError$", "h"),
    "hidden text": (
        lambda: raise_(HiddenTextError()),
        r"HiddenTextError$",
        "raised .*HiddenError>",
    ),
    "long": (lambda: raise_(ValueError("long" * 1_000_000)), r"^ValueError$", "are left out"),
    "exit": (lambda: sys.exit(4), r"^SystemExit$", "4"),
    "interrupt": (lambda: raise_(KeyboardInterrupt), r"^KeyboardInterrupt$", ""),
    "os exit": (lambda: os._exit(3), r"WorkerDiedError", "exited with status 3"),
    "killed": (lambda: os.kill(os.getpid(), 9), r"WorkerDiedError", r"SIGKILL \(out of memory"),
    "segfault": (lambda: ctypes.string_at(0), r"WorkerDiedError", "SIGSEGV"),
    "overflow": (overflow, r"WorkerDiedError|RecursionError", "SIGSEGV|recursion"),
    "too large": (lambda: bytearray(1 << 62), r"^MemoryError$", ""),
    "memory": (run_out_of_memory, r"^MemoryError$", ""),
    "group": (lambda: raise_(GROUP), r"^ExceptionGroup$", r"several \(2 sub-exceptions\)"),
    "fork": (fork_and_return, r"^LookupError$", ""),
    "fork and exit": (fork_and_exit, r"^LookupError$", "3"),
    "fork in its text": (lambda: raise_(ForkingError()), r"ForkingError$", "^parent$"),
    "well": (lambda: None, "", ""),
}


class EndsItsWorkerError(Exception):
    """Has its worker asked to end in the moment in which its text is wanted."""

    def __str__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
        return "its own text"


class Ends(FlowSpec):
    """Fails like that."""

    @step
    def start(self):
        raise_(EndsItsWorkerError())
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_a_failure_is_told_in_full_though_its_worker_is_asked_to_end(engine):
    """As when another task of its run has failed at the same time."""
    with pytest.raises(RunFailedError) as caught:
        await engine.run(Ends)
    assert caught.value.failure.type.endswith("EndsItsWorkerError")
    assert caught.value.failure.message == "its own text"
    assert "in raise_" in caught.value.failure.traceback


class Bad(FlowSpec):
    """Each task ends in its own bad way at first, and well when it is tried again."""

    @step
    def start(self):
        self.ways = [*WAYS, *["well"] * 20]
        self.next(self.work, foreach="ways")

    @retry(times=1, seconds=0)
    @step
    def work(self):
        print(f"{self.input} {current.attempt}", flush=True)
        if current.attempt == 0:
            WAYS[self.input][0]()
        self.next(self.pickle)

    @retry(times=1, seconds=0)
    @step
    def pickle(self):
        if self.input == "well" and current.attempt == 0 and self.index == len(self.ways) - 1:
            self.bad = Unreducible()
        self.next(self.join)

    @step
    def join(self, inputs):
        self.count = len(inputs)
        self.next(self.end)

    @step
    def end(self):
        pass


@pytest.fixture(scope="module")
async def attempts(engine):
    """How each attempt of each task of a run of all of these ended."""
    found: dict[tuple[str, int], list[events.Event]] = {}
    handle = await engine.start(Bad)
    async for event in handle.events():
        if isinstance(event, events.TaskFailed | events.TaskSucceeded) and event.path:
            found.setdefault((event.step, event.path[0]), []).append(event)
    assert (await handle).data.count == len(WAYS) + 20
    return found


@pytest.mark.parametrize("way", [way for way in WAYS if way != "well"])
async def test_a_bad_end_costs_one_attempt_and_is_a_clear_error(attempts, way):
    """The first attempt fails with the right type and message, and the second one succeeds."""
    first, *others = attempts["work", list(WAYS).index(way)]
    _, exception_type, message = WAYS[way]
    assert isinstance(first, events.TaskFailed)
    assert re.search(exception_type, first.exception_type)
    assert re.search(message, first.message)
    assert len(first.message) + len(first.traceback) < 300_000
    (second,) = others
    assert isinstance(second, events.TaskSucceeded)


async def test_no_neighbour_of_a_bad_end_notices(attempts):
    """Whoever does nothing wrong needs one attempt, whatever the others do."""
    for (name, index), ended in attempts.items():
        if name == "work" and index >= len(WAYS) - 1:
            assert [type(event) for event in ended] == [events.TaskSucceeded]


async def test_a_value_that_raises_when_it_is_pickled_is_named(attempts):
    """The task fails with the artifact's name and what was raised."""
    failed, done = attempts["pickle", len(WAYS) + 19]
    assert failed.exception_type == "asyncflow.errors.ArtifactPickleError"
    assert re.search(r"'bad'.*Unreducible.*not me", failed.message, re.DOTALL)
    assert isinstance(done, events.TaskSucceeded)


class OddNames(FlowSpec):
    """Keeps an artifact under a name that no artifact can have, and another that exits."""

    name = Parameter("name", default="number")

    @step
    def start(self):
        match self.name:
            case "number":
                vars(self)[5] = "value"  # type: ignore[index]  # the mistake that is examined
            case "half":
                setattr(self, "half \udcff", "value")
            case "exits":
                self.bad = Exiting()
        self.next(self.end)

    @step
    def end(self):
        pass


class Exiting:
    """Ends the process where it is pickled."""

    def __reduce__(self):
        sys.exit(4)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("number", r"an artifact cannot be called 5: its name is no text"),
        ("half", r"an artifact cannot be called 'half \\udcff': its name holds half a surrogate"),
        ("exits", r"artifact 'bad' of type .*Exiting cannot be pickled: SystemExit: 4"),
    ],
)
async def test_an_artifact_that_cannot_be_stored_is_named(engine, name, words):
    """Without a frame of this library in the traceback."""
    with pytest.raises(RunFailedError) as caught:
        await engine.run(OddNames, name=name)
    failure = caught.value.failure
    assert re.search(words, failure.message)
    assert not own_frames(failure.traceback)


def test_a_constant_whose_name_cannot_be_stored_starts_nothing():
    """It is told like one that a step has made."""
    odd = type("Odd", (OddNames,), {"half \udcff": 1})
    with pytest.raises(ArtifactError, match="an artifact cannot be called 'half"):
        constants_of(odd)


async def sleep_and_raise():
    """What a task of a step's own may do."""
    await asyncio.sleep(0)
    sys.exit(5)


async def raise_in_a_group():
    """Two tasks of the step's own fail."""
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.sleep(0)).add_done_callback(lambda _: None)
        group.create_task(fail_later(ValueError("one")))
        group.create_task(fail_later(KeyError("two")))


async def fail_later(error):
    """Raise when the others have begun."""
    await asyncio.sleep(0)
    raise error


async def exit_in_a_group():
    """A task of the step's own wants the process to exit."""
    async with asyncio.TaskGroup() as group:
        group.create_task(sleep_and_raise())


async def cancel_itself():
    """Be cancelled by nobody else."""
    asyncio.current_task().cancel()
    await asyncio.sleep(10)


async def fork_in_async():
    """The child of a fork comes back as well."""
    if os.fork() == 0:
        return
    os.wait()
    raise LookupError


async def exit_now():
    """Raise SystemExit in the step itself."""
    sys.exit(6)


async def interrupt_now():
    """The same with KeyboardInterrupt."""
    raise KeyboardInterrupt


ASYNC_WAYS = {
    "group": (raise_in_a_group, r"^ExceptionGroup$", "2 sub-exceptions"),
    "exit in a group": (exit_in_a_group, r"^SystemExit$", "5"),
    "exit": (exit_now, r"^SystemExit$", "6"),
    "interrupt": (interrupt_now, r"^KeyboardInterrupt$", ""),
    "cancels itself": (cancel_itself, r"CancelledError$", ""),
    "fork": (fork_in_async, r"^LookupError$", ""),
}


class BadAsync(FlowSpec):
    """The same for async tasks, which share a worker with neighbours that wait all the time."""

    @step
    def start(self):
        self.ways = [*ASYNC_WAYS, *["well"] * 10]
        self.next(self.work, foreach="ways")

    @step
    async def work(self):
        if self.input == "well":
            await asyncio.sleep(0.3)
            self.pid = os.getpid()
        else:
            try:
                await ASYNC_WAYS[self.input][0]()
            except BaseException as error:
                self.caught = type(error).__name__
                self.text = str(error)
                raise
        self.next(self.join)

    @step
    def join(self, inputs):
        self.next(self.end)

    @step
    def end(self):
        pass


# so that the run goes on meanwhile
retry(times=1, seconds=60)(BadAsync.work)


@pytest.fixture(scope="module")
async def async_attempts(engine):
    """How the first attempt of each async task ended."""
    found = {}
    handle = await engine.start(BadAsync)
    async for event in handle.events():
        if isinstance(event, events.TaskFailed | events.TaskSucceeded) and event.step == "work":
            found[event.path[0]] = event
            if len(found) == len(ASYNC_WAYS) + 10:
                handle.cancel()
    return found


@pytest.mark.parametrize("way", list(ASYNC_WAYS))
async def test_a_bad_end_of_an_async_task_is_a_clear_error(async_attempts, way):
    """Exceptions of its own tasks come with it; none of them ends the worker."""
    failed = async_attempts[list(ASYNC_WAYS).index(way)]
    _, exception_type, message = ASYNC_WAYS[way]
    assert isinstance(failed, events.TaskFailed)
    assert re.search(exception_type, failed.exception_type)
    assert re.search(message, failed.message)


async def test_the_traceback_of_a_group_tells_all_of_its_exceptions(async_attempts):
    """Each with its own text."""
    failed = async_attempts[list(ASYNC_WAYS).index("group")]
    assert "ValueError: one" in failed.traceback
    assert "KeyError: 'two'" in failed.traceback


async def test_async_neighbours_of_a_bad_end_go_on(async_attempts):
    """They wait on the same event loop, and end well at their first attempt."""
    ended = [async_attempts[index] for index in range(len(ASYNC_WAYS), len(ASYNC_WAYS) + 10)]
    assert {type(event) for event in ended} == {events.TaskSucceeded}


async def test_a_stopped_idle_worker_holds_nothing_up(store):
    """Its tasks are taken back and run elsewhere."""
    before = psutil.Process().children()
    async with Engine(store=store, workers=2) as engine:
        await engine.run(Wide, width=50)
        (reaper,) = [child for child in psutil.Process().children() if child not in before]
        stopped = reaper.children()[0].children()[0]
        stopped.suspend()
        assert (await engine.run(Wide, width=50)).data.count == 50
        assert stopped.status() == psutil.STATUS_STOPPED
        stopped.resume()


class Halted(FlowSpec):
    """One of its tasks stops its own process."""

    @step
    def start(self):
        self.items = range(8)
        self.next(self.work, foreach="items")

    @retry(times=1, seconds=0)
    @timeout(seconds=1.5)
    @step
    def work(self):
        if current.attempt == 0 and self.input == 0:
            os.kill(os.getpid(), signal.SIGSTOP)
        self.next(self.join)

    @step
    def join(self, inputs):
        self.count = len(inputs)
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_a_worker_that_is_stopped_at_work_costs_one_attempt(engine):
    """When its time is over it is killed like one that runs, and what stood behind it is run."""
    run = await engine.run(Halted)
    assert run.data.count == 8
    task = next(task for task in run["work"] if task.index == 0)
    first, _ = task.attempts()
    assert first.exception.type.endswith("TaskTimeoutError")


class StandsStill(FlowSpec):
    """A task stops its own process; in the async branch others are at work there as well."""

    @step
    def start(self):
        self.next(self.alone, self.items)

    @step
    def alone(self):
        os.kill(os.getpid(), signal.SIGSTOP)
        self.next(self.join)

    @step
    def items(self):
        self.numbers = range(5)
        self.next(self.beside, foreach="numbers")

    @step
    async def beside(self):
        if self.input == 4:
            os.kill(os.getpid(), signal.SIGSTOP)
        self.next(self.together)

    @step
    def together(self, inputs):
        self.next(self.join)

    @step
    def join(self, inputs):
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_a_worker_that_stands_still_at_work_is_named_and_goes_on_when_it_is_let(
    store, caplog
):
    """In the task's log and in the library's, with the command; it is not killed."""
    named = set()
    async with Engine(store=store, workers=2) as engine:
        handle = await engine.start(StandsStill)
        async for event in handle.events(events.TaskLogged):
            found = re.search(r"its worker, process (\d+), was stopped by SIGSTOP", event.line)
            if found:
                assert f"kill -CONT {found[1]}" in event.line
                named.add(event.step)
                os.kill(int(found[1]), signal.SIGCONT)
        run = await handle
    assert named == {"alone", "beside"}
    told = [message for message in caplog.messages if "a worker was stopped" in message]
    assert any(f"task: {run.pathspec}/alone/" in message for message in told)
    assert not [event for event in run.events() if isinstance(event, events.TaskFailed)]


class Timed(FlowSpec):
    """Its task takes half of the time that it has."""

    @timeout(seconds=2)
    @step
    def start(self):
        print("at work", flush=True)
        time.sleep(1)
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_while_an_engine_is_suspended_its_workers_stand_still_and_no_time_passes(store):
    """What the program was stopped for does not count as time of a task."""
    async with Engine(store=store, workers=1) as engine:
        with engine.suspended():  # nobody is at work: nothing happens
            pass
        handle = await engine.start(Timed)
        async for event in handle.events(events.TaskLogged):
            if event.line == "at work":
                break
        started = [each for each in handle.run.events() if isinstance(each, events.TaskStarted)]
        worker = psutil.Process(started[0].pid)
        with engine.suspended():
            while worker.status() != psutil.STATUS_STOPPED:
                time.sleep(0.01)
            time.sleep(2.5)
        await handle
    assert not [event for event in handle.run.events() if isinstance(event, events.TaskFailed)]


class Greedy(FlowSpec):
    """Takes more memory than the kernel lets it have."""

    group = Parameter("group", type=str)

    @step
    def start(self):
        self.items = range(4)
        self.next(self.work, foreach="items")

    @retry(times=1, seconds=0)
    @step
    def work(self):
        if current.attempt == 0 and self.input == 0:
            Path(str(self.group), "cgroup.procs").write_text(str(os.getpid()))
            self.taken = [os.urandom(1 << 20) for _ in range(512)]
        self.next(self.join)

    @step
    def join(self, inputs):
        self.next(self.end)

    @step
    def end(self):
        pass


@pytest.fixture
def memory_group():
    """A control group with little memory; the kernel kills what takes more."""
    root = Path("/sys/fs/cgroup")
    old = (root / "memory").is_dir()
    group = (root / "memory" if old else root) / f"asyncflow-test-{os.getpid()}"
    limit = group / ("memory.limit_in_bytes" if old else "memory.max")
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    try:
        limit.write_text(str(128 << 20))
    except OSError as error:
        group.rmdir()
        pytest.skip(f"memory cannot be limited by a control group here: {error}")
    yield group
    group.rmdir()


async def test_the_kernels_out_of_memory_killer_costs_one_attempt(engine, memory_group):
    """The error names the signal and guesses the reason; the next attempt succeeds."""
    run = await engine.run(Greedy, group=str(memory_group))
    greedy, *others = sorted(run["work"], key=lambda task: task.index)
    first, _ = greedy.attempts()
    assert first.exception.type == "asyncflow.errors.WorkerDiedError"
    assert "SIGKILL (out of memory, perhaps)" in first.exception.message
    assert [len(list(task.attempts())) for task in others] == [1, 1, 1]


class Survivor(FlowSpec):
    """One task that lasts until a file is there, and may be tried again."""

    @retry(times=2, seconds=0)
    @step
    def start(self):
        print("at work", flush=True)
        if current.attempt == 0:
            threading.Event().wait(60)
        self.attempt = current.attempt
        self.next(self.end)

    @step
    def end(self):
        pass


@pytest.mark.parametrize("killed", ["reaper", "fork server"])
async def test_the_process_that_starts_workers_may_be_killed_during_a_run(engine, killed):
    """What it had started is gone with it; each task loses one attempt, and the run goes on."""
    handle = await engine.start(Survivor)
    async for event in handle.events():
        if isinstance(event, events.TaskLogged) and event.attempt == 0:
            for reaper in psutil.Process().children():
                (reaper if killed == "reaper" else reaper.children()[0]).kill()
    run = await handle
    assert run.data.attempt == 1
    first, _ = run["start"].task.attempts()
    assert first.exception.type.endswith("WorkerDiedError")


class Enduring(FlowSpec):
    """Short tasks that may lose many workers."""

    width = Parameter("width", default=10)

    @retry(times=20, seconds=0)
    @step
    def start(self):
        self.items = range(self.width)
        self.next(self.work, foreach="items")

    @retry(times=20, seconds=0)
    @step
    def work(self):
        time.sleep(0.01)
        self.next(self.join)

    @retry(times=20, seconds=0)
    @step
    def join(self, inputs):
        self.count = len(inputs)
        self.next(self.end)

    @retry(times=20, seconds=0)
    @step
    def end(self):
        pass


@pytest.mark.parametrize("executor", ["workers", "loopback"])
async def test_a_run_survives_any_number_of_deaths_of_the_process_that_starts_workers(
    store, executor
):
    """Two within a moment, and many more: a run goes on as long as its tasks may be tried again."""
    where = {"workers": 2} if executor == "workers" else {"executor": Loopback(workers=2)}
    killed, seen = 0, set()
    async with Engine(store=store, **where) as engine:
        await engine.run(Enduring, width=2)
        handle = await engine.start(Enduring, width=40)
        while killed < 9:
            for process in psutil.Process().children(recursive=True):
                with suppress(psutil.Error):
                    if process.pid not in seen and _is_fork_server(process):
                        seen.add(process.pid)
                        process.kill()
                        killed += 1
            await asyncio.sleep(0.002)
        run = await handle
    assert run.data.count == 40


def _is_fork_server(process):
    """The reaper of a pool and its fork server have the same command line; workers as well."""
    parent = process.parent()
    grandparent = parent and parent.parent()
    if grandparent is None:  # its parent has just ended
        return False
    command = process.cmdline()
    return (
        "fork_server.main" in " ".join(command)
        and parent.cmdline() == command
        and grandparent.cmdline() != command
    )


async def test_the_only_worker_goes_on_when_it_was_stopped_for_a_while(tmp_path):
    """Its tasks are taken back meanwhile; it is asked whether it is there, and gets them again."""
    async with Engine(store=tmp_path, workers=1) as engine:
        first = await engine.run(Linear)
        [pid] = {event.pid for event in first.events() if isinstance(event, events.TaskStarted)}
        os.kill(pid, signal.SIGSTOP)
        handle = await engine.start(Linear)
        for silent in (False, True):  # it has an order, and then has none any more
            while bool(engine.statistics().tasks_running) is silent:  # noqa: ASYNC110 - polled
                await asyncio.sleep(0.01)
        os.kill(pid, signal.SIGCONT)
        run = await handle
    assert {event.pid for event in run.events() if isinstance(event, events.TaskStarted)} == {pid}


class Crashing(FlowSpec):
    """A step of either kind that crashes its process in C code."""

    is_async = Parameter("is_async", default=False)

    @step
    def start(self):
        if not self.is_async:
            print("before")
            ctypes.string_at(0)
        self.next(self.end)

    @step
    async def end(self):
        print("before")
        ctypes.string_at(0)


@pytest.mark.parametrize("name", ["start", "end"])
async def test_the_log_of_a_task_that_crashes_says_how_and_where(store, name):
    """The signal's meaning, and the line of the step, behind what it had printed."""
    async with Engine(store=store, workers=1) as engine:
        handle = await engine.start(Crashing, is_async=name == "end")
        with pytest.raises(RunFailedError):
            await handle
    task = Run(handle.pathspec, store=store)[name].task
    assert task.stdout == "before\n"
    assert task.stderr.startswith("Fatal Python error: Segmentation fault\n")
    assert re.search(rf'File ".*test_bad_endings.py", line \d+ in {name}\n', task.stderr)
