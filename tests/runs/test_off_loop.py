"""Async steps: what they make is stored, and what is large is read, while others go on."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asyncflow import (
    Engine,
    FlowSpec,
    Parameter,
    Run,
    Task,
    catch,
    current,
    events,
    retry,
    step,
    timeout,
)
from asyncflow.errors import FlowError, RunFailedError
from asyncflow.store.layout import Layout
from asyncflow.store.maintenance import verify
from tests.support.flipped_byte import flip_byte

MIB = 1 << 20
_PATIENCE = 60.0
_opened = threading.Event()
_begun = threading.Event()
_noted: list[str] = []


class Gated:
    """Is pickled when the gate is open, and says when it waits for that."""

    def __reduce_ex__(self, protocol):
        _begun.set()
        if not _opened.wait(_PATIENCE):
            raise TimeoutError("nobody else has had a turn")
        return Gated, ()


class Noted:
    """Notes that it is pickled."""

    def __reduce__(self):
        _noted.append(current.pathspec)
        return Noted, ()


async def begun() -> None:
    """Return when something waits at the gate."""
    while not _begun.is_set():  # noqa: ASYNC110 - it is set in a thread
        await asyncio.sleep(0.001)


class Stores(FlowSpec):
    """One task stores 64 MiB and cannot get on with it before the other has had a hundred turns."""

    @step
    def start(self):
        self.items = [0, 1]
        self.next(self.work, foreach="items")

    @step
    async def work(self):
        if self.input == 0:
            half = np.arange(4 * MIB, dtype=float)
            self.value = [half, Gated(), half[::-1].copy()]
        else:
            await begun()
            for _ in range(100):
                await asyncio.sleep(0)
            _opened.set()
        self.next(self.join)

    @step
    def join(self, inputs):
        first, _, last = inputs[0].value
        self.right = bool((first == last[::-1]).all())
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_others_go_on_while_one_stores(store):
    """Its value is whole, and it is told of when it can be read, not before."""
    async with Engine(store=store, workers=1) as engine:
        handle = await engine.start(Stores)
        stored = {}
        async for event in handle.events():
            if isinstance(event, events.TaskSucceeded) and event.step == "work":
                task = Task(f"Stores/{handle.run_id}/work/{event.task_id}")
                stored[task.index] = {artifact.id for artifact in task.artifacts}
        run = await handle
    assert run.data.right
    assert "value" in stored[0]
    done = [event.path for event in run.events(events.TaskSucceeded) if event.step == "work"]
    assert done == [(1,), (0,)]


# --- how it fails -------------------------------------------------------------------------------


class Unpicklable(FlowSpec):
    """Neither step has what can be stored."""

    @step
    def start(self):
        self.next(self.choose)

    @catch(var="failed")
    @step
    def choose(self):
        self.value = [bytes(MIB), threading.Lock()]
        self.next(self.waits)

    @catch(var="failed_async")
    @step
    async def waits(self):
        self.value = [bytes(MIB), threading.Lock()]
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_what_cannot_be_pickled_fails_with_the_same_words(store):
    """In an async step as in a `def` step."""
    async with Engine(store=store, workers=1) as engine:
        run = await engine.run(Unpicklable)
    one, other = run["choose"].task.caught, run["waits"].task.caught
    assert "artifact 'value' of type list cannot be pickled: self.value[1]" in one.message
    assert (one.type, one.message, one.traceback) == (other.type, other.message, other.traceback)


class OutOfTime(FlowSpec):
    """One is out of time while it is stored; its neighbour waits for that, and then lets it on."""

    @step
    def start(self):
        self.next(self.one, self.other)

    @retry(times=1, minutes_between_retries=0)
    @timeout(seconds=3)
    @step
    async def one(self):
        self.first = [Gated(), bytes(MIB)]
        self.second = Noted()
        self.next(self.join)

    @step
    async def other(self):
        await begun()
        while not any(task.cancelling() for task in asyncio.all_tasks()):  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.001)
        _opened.set()
        self.next(self.join)

    @step
    def join(self, inputs):
        self.noted = list(_noted)
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_a_task_that_is_stopped_while_it_is_stored_stores_no_more(store):
    """It ends once its thread has, its worker goes on, and the next attempt stores all of it."""
    async with Engine(store=store, workers=1) as engine:
        run = await engine.run(OutOfTime)
    [failed] = run.events(events.TaskFailed)
    assert (failed.step, failed.exception_type) == ("one", "asyncflow.errors.TaskTimeoutError")
    assert run.data.noted == [run["one"].task.pathspec]
    assert len({event.pid for event in run.events(events.TaskStarted)}) == 1


class Told:
    """Says that it is pickled, at the gate."""

    def __init__(self):
        self.filling = os.urandom(MIB)

    def __getstate__(self):
        print("pickled", flush=True)
        _begun.set()
        if not _opened.wait(_PATIENCE):
            raise TimeoutError("nobody else has had a turn")
        return vars(self)


class CaughtOutOfTime(OutOfTime):
    """The same, but that what was set is handed on with the failure."""

    @catch(var="failure", print_exception=False)
    @timeout(seconds=3)
    @step
    async def one(self):
        self.number = 1
        self.told = Told()
        self.last = [bytes(MIB)]
        self.next(self.join)

    @step
    def join(self, inputs):
        self.merge_artifacts(inputs)
        self.next(self.end)


async def test_what_catch_hands_on_of_a_task_that_is_out_of_time_is_stored_once(store):
    """It was being stored when the time was over: that is completed, and not done again."""
    async with Engine(store=store, workers=1) as engine:
        run = await engine.run(CaughtOutOfTime)
    assert run["one"].task.stdout == "pickled\n"
    assert run.data.failure.type == "asyncflow.errors.TaskTimeoutError"
    assert (run.data.number, run.data.last) == (1, [bytes(MIB)])
    assert isinstance(run.data.told, Told)


class Deadly:
    """Kills its process where that pickles it for the first time."""

    def __reduce_ex__(self, protocol):
        if current.step_name == "work" and current.attempt == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return Deadly, ()


class Killed(FlowSpec):
    """Its worker dies between two large artifacts, and in the middle of the second."""

    @step
    def start(self):
        self.next(self.work)

    @retry(times=1, minutes_between_retries=0)
    @step
    async def work(self):
        self.first = np.arange(MIB)
        self.second = [np.arange(MIB) + 1, Deadly()]
        self.next(self.end)

    @step
    def end(self):
        self.right = bool((self.first + 1 == self.second[0]).all())


async def test_a_worker_that_dies_while_it_stores_leaves_nothing_wrong(store):
    """The next attempt's artifacts are right, and the store holds what it says."""
    async with Engine(store=store, workers=1) as engine:
        run = await engine.run(Killed)
    assert run.data.right
    [failed] = run.events(events.TaskFailed)
    assert failed.exception_type == "asyncflow.errors.WorkerDiedError"
    assert not list(verify.verify(Layout.open(store, create=False)).damage)


class Closes(FlowSpec):
    """While one is stored, its neighbour closes what their worker needs."""

    @step
    def start(self):
        self.next(self.one, self.other)

    @retry(times=1, minutes_between_retries=0)
    @step
    async def one(self):
        self.value = [np.arange(MIB), Gated(), np.arange(MIB)]
        self.next(self.join)

    @retry(times=1, minutes_between_retries=0)
    @step
    async def other(self):
        if current.attempt == 0:
            await begun()
            os.closerange(3, 1024)
        _opened.set()
        self.next(self.join)

    @step
    def join(self, inputs):
        first, _, last = inputs.one.value
        self.right = bool((first == last).all())
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_what_is_stored_while_a_neighbour_closes_descriptors_is_not_told_of(store):
    """The worker ends, and both are tried again."""
    async with Engine(store=store, workers=1) as engine:
        run = await engine.run(Closes)
    assert run.data.right
    failed = run.events(events.TaskFailed)
    assert {(event.step, event.attempt) for event in failed} == {("one", 0), ("other", 0)}


# --- whose it is --------------------------------------------------------------------------------


class Speaks:
    """Says of which task it is when it is pickled."""

    def __reduce__(self):
        print("pickled in", current.pathspec)
        return Speaks, ()


class Speak(FlowSpec):
    """Its tasks are stored at once."""

    @step
    def start(self):
        self.items = range(20)
        self.next(self.work, foreach="items")

    @step
    async def work(self):
        self.value = Speaks()
        self.next(self.join)

    @step
    def join(self, inputs):
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_code_that_runs_while_a_task_is_stored_is_in_that_task(store):
    """What it prints is in the task's log, and `current` tells of the task."""
    async with Engine(store=store, workers=1) as engine:
        run = await engine.run(Speak)
    for task in run["work"]:
        assert task.stdout == f"pickled in {task.pathspec}\n"


class Forks:
    """Forks the process that pickles it."""

    def __reduce__(self):
        child = os.fork()
        if child:
            os.waitpid(child, 0)
        return Forks, ()


class Forked(FlowSpec):
    """What it stores comes back in a process that is no worker."""

    @step
    async def start(self):
        self.value = Forks()
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_a_process_that_is_forked_while_a_task_is_stored_ends_there(store):
    """It stores nothing and tells nothing; the task succeeds, once."""
    async with Engine(store=store, workers=1) as engine:
        run = await engine.run(Forked)
    assert [event.step for event in run.events(events.TaskSucceeded)] == ["start", "end"]


class Masks(FlowSpec):
    """A worker that has run async steps runs a `def` step."""

    @step
    async def start(self):
        self.value = Speaks()
        self.next(self.end)

    @step
    def end(self):
        self.blocked = {}
        for thread in set(threading.enumerate()) - {threading.main_thread()}:
            status = Path(f"/proc/self/task/{thread.native_id}/status").read_text()
            [mask] = re.findall(r"SigBlk:\t(\w+)", status)
            self.blocked[thread.name] = bool(int(mask, 16) >> signal.SIGTERM - 1 & 1)


async def test_no_thread_of_a_workers_own_takes_a_signal_that_is_for_its_main_thread(store):
    """Else what the main thread blocks, while it has a result to tell, would end the worker."""
    async with Engine(store=store, workers=1) as engine:
        run = await engine.run(Masks)
    assert run.data.blocked == {"watchdog": True, "asyncflow-store_0": True}


# --- reading ------------------------------------------------------------------------------------


class Slow:
    """Is unpickled when the gate is open."""

    def __init__(self):
        self.filling = os.urandom(MIB)

    def __setstate__(self, state):
        _begun.set()
        if not _opened.wait(_PATIENCE):
            raise TimeoutError("nobody else has had a turn")
        vars(self).update(state)


class Reads(FlowSpec):
    """One task reads what is not there before the other has had its turns."""

    text = Parameter("text", default="short")

    @step
    def start(self):
        self.slow, self.array, self.small = Slow(), np.arange(MIB), 5
        self.items = [np.arange(MIB), np.arange(3)]
        self.next(self.work, foreach="items")

    @step
    async def work(self):
        if self.index == 0:
            loaded = await current.load("slow")
            assert loaded is self.slow
            array = await current.load("array")
            assert array is self.array
            assert await current.load("array") is array
            assert await current.load("small") == 5
            assert len(await current.load("text")) == 2 * MIB
            assert (await current.load("input")) is self.input
            self.small = 6
            assert await current.load("small") == 6
            self.sum = int(array.sum() + self.input.sum())
            self.with_typo = [await told("smal"), *errors_of(lambda: self.smal)]
        else:
            await begun()
            for _ in range(100):
                await asyncio.sleep(0)
            _opened.set()
        self.next(self.join)

    @step
    async def join(self, inputs):
        first = inputs[0]
        assert await current.load("array", first) is first.array
        self.sum = first.sum
        self.with_typo = [
            *first.with_typo,
            await told("arry", first),
            await told("array"),
            await told("array", "inputs"),
        ]
        self.next(self.end)

    @step
    def end(self):
        self.in_def = errors_of(lambda: current.load("sum"))


async def told(name: str, of: Any = None) -> str:
    """What the failure to load something says."""
    try:
        await current.load(name, of)
    except (AttributeError, FlowError) as error:
        return str(error)
    return ""


def errors_of(call: Any) -> list[str]:
    """What a failure says."""
    try:
        call()
    except (AttributeError, FlowError) as error:
        return [str(error)]
    return []


async def test_what_is_loaded_is_what_a_plain_read_gives_and_others_go_on(store):
    """Artifacts, parameters, items and inputs; what is not there is told of as by a plain read."""
    async with Engine(store=store, workers=1) as engine:
        run = await engine.run(Reads, text="long" * (MIB // 2))
    assert run.data.sum == 2 * sum(range(MIB))
    typo, plain, of_input, in_join, no_input = run.data.with_typo
    assert typo == plain
    assert "did you mean 'small'" in typo
    assert of_input.startswith("the input 'work' has no artifact 'arry'; it has ")
    assert "a join inherits none" in in_join
    assert no_input == "current.load takes one of the inputs of a join, not 'inputs'"
    [in_def] = run.data.in_def
    assert in_def == "current.load is for async steps: in a `def` step, read self.sum"
    for task in run["work"]:  # what was only read was handed on, not stored again
        assert task["array"].sha == run["start"].task["array"].sha


def scrambled() -> set[str]:
    """A large set, in another order than an equal one has that is new."""
    names = {f"name {number}" for number in range(40_000)}
    return (names - {f"name {number}" for number in range(0, 40_000, 3)}) | {"more", "and more"}


class Talks:
    """Says how far it is with being unpickled."""

    def __init__(self):
        self.filling = os.urandom(MIB)

    def __setstate__(self, state):
        _begun.set()
        _opened.wait(_PATIENCE)
        time.sleep(0.5)  # while its task would end
        print("unpickled late")


class GivesUp(FlowSpec):
    """Waits for what it loads until that has begun, and no longer."""

    fail = Parameter("fail", default=False)

    @step
    def start(self):
        self.talks = Talks()
        self.next(self.work)

    @step
    async def work(self):
        loading = asyncio.ensure_future(current.load("talks"))
        await begun()
        loading.cancel()
        _opened.set()
        if self.fail:
            raise ValueError
        self.next(self.end)

    @step
    async def end(self):
        await asyncio.sleep(1)


@pytest.mark.parametrize("fail", [False, True])
async def test_a_task_ends_after_what_it_has_begun_to_load(store, fail):
    """What that prints is in the task's log, though the task no longer waits for it."""
    async with Engine(store=store, workers=1) as engine:
        handle = await engine.start(GivesUp, fail=fail)
        with suppress(RunFailedError):
            await handle
    assert Run(handle.pathspec)["work"].task.stdout == "unpickled late\n"


class ForksWhenRead:
    """Forks the process that unpickles it."""

    def __init__(self):
        self.filling = os.urandom(MIB)

    def __setstate__(self, state):
        child = os.fork()
        self.status = os.waitpid(child, 0)[1] if child else None


class ForkedWhenRead(FlowSpec):
    """What it loads comes back in a process that is no worker, which is waited for."""

    @step
    def start(self):
        self.value = ForksWhenRead()
        self.next(self.work)

    @step
    async def work(self):
        loaded = await current.load("value")
        self.status = loaded.status
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_a_process_that_is_forked_while_an_artifact_is_loaded_ends_there(store):
    """Its parent, which waits for it, goes on."""
    async with Engine(store=store, workers=1) as engine:
        run = await asyncio.wait_for(engine.run(ForkedWhenRead), _PATIENCE)
    assert run.data.status == 0


class LoadsAtOnce(FlowSpec):
    """Each artifact is read by several at a time, in tasks of the loop or in threads."""

    @step
    def start(self):
        self.names = scrambled()
        self.next(self.tasks, self.threads, self.nobody)

    @step
    async def tasks(self):
        first, *others = await asyncio.gather(*(current.load("names") for _ in range(8)))
        self.are_one = all(each is first for each in [*others, self.names])
        self.next(self.join)

    @step
    def threads(self):
        with ThreadPoolExecutor(8) as pool:
            meet = threading.Barrier(8)
            first, *others = pool.map(lambda _: (meet.wait(), self.names)[1], range(8))
        self.are_one = all(each is first for each in [*others, self.names])
        self.next(self.join)

    @step
    def nobody(self):
        self.are_one = True
        self.next(self.join)

    @step
    async def join(self, inputs):
        assert all(each.are_one for each in inputs)
        view = inputs.nobody
        first, *others = await asyncio.gather(*(current.load("names", view) for _ in range(8)))
        self.inputs_are_one = all(each is first for each in [*others, view.names])
        self.merge_artifacts(inputs)
        self.items = [np.arange(MIB)]
        self.next(self.work, foreach="items")

    @step
    async def work(self):
        first, *others = await asyncio.gather(*(current.load("input") for _ in range(8)))
        self.items_are_one = all(each is first for each in [*others, self.input])
        self.next(self.end_of_work)

    @step
    def end_of_work(self, inputs):
        self.merge_artifacts(inputs)
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_all_who_load_an_artifact_at_once_get_the_same_object(store):
    """It is unchanged, so that it can be merged; the same goes for inputs and items."""
    async with Engine(store=store, workers=2) as engine:
        run = await engine.run(LoadsAtOnce)
    assert run.data.are_one
    assert run.data.inputs_are_one
    assert run.data.items_are_one
    assert run["end"].task["names"].sha == run["start"].task["names"].sha


def test_outside_of_a_task_there_is_nothing_to_load():
    """As with all that `current` tells."""
    with pytest.raises(AttributeError, match="no task runs here"):
        current.load("value")


class Damaged(FlowSpec):
    """Reads an array that has been damaged on the disk."""

    kept = Parameter("kept", default=False)

    @step
    def start(self):
        self.array = np.arange(MIB)
        self.next(self.spoils)

    @step
    def spoils(self):
        store = Path(os.environ["ASYNCFLOW_STORE"])
        path = max(store.glob("blobs/??/*"), key=lambda path: path.stat().st_size)
        flip_byte(path, 4 * MIB)
        self.next(self.reads)

    @catch(var="failure")
    @step
    async def reads(self):
        self.plain = int(self.array.sum())
        print("the sum is", self.plain)
        if self.kept:
            raise ValueError("because of that sum")
        self.next(self.loads)

    @catch(var="second")
    @step
    async def loads(self):
        await current.load("array")
        print("loaded")
        self.next(self.end)

    @step
    def end(self):
        pass


@pytest.mark.parametrize("raises", [False, True])
async def test_what_was_read_and_is_damaged_fails_the_task_before_it_is_told_of(store, raises):
    """A plain read of an async step goes on at once, and nothing that came of it is kept."""
    async with Engine(store=store, workers=1) as engine:
        run = await engine.run(Damaged, kept=raises)
    task = run["reads"].task
    assert task.stdout.startswith("the sum is")
    assert task.caught.type == "asyncflow.errors.ArtifactCorruptError"
    assert "artifact 'Damaged/" in task.caught.message
    assert "plain" not in task.artifacts
    loads = run["loads"].task
    assert loads.caught.type == "asyncflow.errors.ArtifactCorruptError"
    assert loads.stdout == ""
