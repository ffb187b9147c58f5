"""What a task finds around it is what a script would expect."""

from __future__ import annotations

import asyncio
import decimal
import io
import locale
import os
import signal
import subprocess
import sys
import textwrap
import time
import zlib
from contextvars import ContextVar
from pathlib import Path

import numpy as np
import pytest

from asyncflow import Engine, FlowSpec, Parameter, environment, step
from asyncflow.errors import FlowError, PoolError
from asyncflow.events import to_json

NAME = "ASYNCFLOW_TEST_WORD"


class Looking(FlowSpec):
    """Looks around, makes a mess, and looks around again in the next task of the same worker."""

    @step
    def start(self):
        self.first = look()
        os.chdir("/")
        os.environ[NAME] = "left by a step"
        os.environ["ASYNCFLOW_TEST_OTHER"] = "too"
        del os.environ["HOME"]
        self.next(self.end)

    @step
    def end(self):
        self.second = look()


def look():
    """What is around."""
    return {
        "cwd": str(Path.cwd()),
        "path": list(sys.path),
        "argv": sys.argv,
        "environment": dict(os.environ),
        "stdin": sys.stdin.read(),
        "umask": os.umask(0o022),
    }


@pytest.fixture
def usual(monkeypatch, tmp_path):
    """A mask and a home as most programs have them, whatever those of the tests are."""
    monkeypatch.setenv("HOME", str(tmp_path))
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture
async def engine(usual, store):
    """An open engine with one worker, so that a task always follows another there."""
    async with Engine(store=store, workers=1) as opened:
        yield opened


async def test_a_task_finds_the_programs_surroundings(engine, tmp_path, monkeypatch):
    """Working directory, `sys.path`, arguments and variables as when the run was started."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(NAME, "set after the engine was opened")
    monkeypatch.setenv("ASYNCFLOW_TEST_BYTES", "caf\udce9")  # not UTF-8
    monkeypatch.delenv("LANG", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    found = (await engine.run(Looking)).data.first
    assert found["cwd"] == str(tmp_path)
    assert [entry for entry in found["path"] if entry in sys.path] == sys.path
    assert found["argv"] == sys.argv
    assert found["environment"] == dict(os.environ)
    assert (found["stdin"], found["umask"]) == ("", 0o022)


async def test_what_a_task_changes_is_put_back_for_the_next(engine):
    """Its working directory and its environment variables are its own."""
    data = (await engine.run(Looking)).data
    assert data.second == data.first


async def test_each_run_of_an_engine_has_the_surroundings_of_its_start(
    engine, tmp_path, monkeypatch
):
    """One warm worker serves them all."""
    monkeypatch.setenv(NAME, "before")
    before = (await engine.run(Looking)).data.first
    monkeypatch.delenv(NAME)
    monkeypatch.chdir(tmp_path)
    after = (await engine.run(Looking)).data.first
    assert before["environment"][NAME] == "before"
    assert NAME not in after["environment"]
    assert (before["cwd"] == str(tmp_path), after["cwd"]) == (False, str(tmp_path))


async def test_more_variables_than_can_be_told_are_refused(engine, monkeypatch):
    """The error names the largest, and the engine goes on."""
    monkeypatch.setenv(NAME, "x" * 1_000_000)
    with pytest.raises(PoolError, match=f"'{NAME}' is the largest"):
        await engine.run(Looking)
    monkeypatch.setenv(NAME, "x" * 50_000)
    data = (await engine.run(Looking)).data
    assert data.first["environment"][NAME] == "x" * 50_000


user = ContextVar("user", default="nobody")


def settings():
    """What the context of this code and its process are set to."""
    return {
        "variable": user.get(),
        "precision": decimal.getcontext().prec,
        "numpy": np.geterr()["divide"],
        "streams": [type(each).__name__ for each in (sys.stdin, sys.stdout, sys.stderr)],
        "hooks": [each.__name__ for each in (sys.excepthook, sys.displayhook, sys.unraisablehook)],
        "breakpoint": sys.breakpointhook.__name__,
        "argv": list(sys.argv),
        "recursion": sys.getrecursionlimit(),
        "locale": locale.setlocale(locale.LC_ALL),
        "zone": (os.environ.get("TZ"), time.tzname),
        "umask": umask(),
        "signals": [
            str(signal.getsignal(each))
            for each in (signal.SIGTERM, signal.SIGUSR1, signal.SIGALRM, signal.SIGPROF)
        ],
        "blocked": signal.pthread_sigmask(signal.SIG_BLOCK, ()),
        "alarm": signal.getitimer(signal.ITIMER_REAL),
        "virtual": signal.getitimer(signal.ITIMER_VIRTUAL),
        "profile": signal.getitimer(signal.ITIMER_PROF),
    }


TIMERS = {signal.SIGVTALRM: signal.ITIMER_VIRTUAL, signal.SIGPROF: signal.ITIMER_PROF}
BLOCKED = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2, signal.SIGCHLD}


def umask():
    """That of this process."""
    now = os.umask(0o022)
    os.umask(now)
    return now


def say(*_: object) -> None:
    """A hook and a handler that is easily told from others."""
    print("said", flush=True)


def change():
    """Set all of them to something else."""
    user.set("a task")
    decimal.getcontext().prec = 4
    np.seterr(divide="raise")
    sys.stdin, sys.stdout, sys.stderr = io.StringIO("text"), io.StringIO(), io.StringIO()
    sys.excepthook = sys.displayhook = sys.unraisablehook = sys.breakpointhook = say
    sys.argv = ["another"]
    sys.setrecursionlimit(12_345)
    locale.setlocale(locale.LC_ALL, "C" if locale.setlocale(locale.LC_CTYPE) != "C" else "C.UTF-8")
    os.environ["TZ"] = "Asia/Tokyo"
    time.tzset()
    os.umask(0o077)
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGALRM, *TIMERS):
        signal.signal(number, say)
    for timer in TIMERS.values():
        signal.setitimer(timer, 1000)
    signal.pthread_sigmask(signal.SIG_BLOCK, BLOCKED)
    signal.alarm(1000)


class Changing(FlowSpec):
    """Each step tells of the settings that it finds, and changes them all."""

    @step
    def start(self):
        self.found = [settings()]
        change()
        self.changed = settings()
        self.next(self.same)

    @step
    def same(self):
        self.found.append(settings())
        change()
        self.next(self.other)

    @step
    async def other(self):
        self.found.append(settings())
        change()
        await asyncio.sleep(0)
        self.next(self.again)

    @step
    async def again(self):
        self.found.append(settings())
        change()
        self.next(self.end)

    @step
    def end(self):
        print("heard")
        self.found.append(settings())


async def test_each_task_has_its_own_context_and_finds_the_process_as_it_was(engine):
    """Whether a def or an async step was there before; and what it prints is in its log."""
    run = await engine.run(Changing)
    first, *others = run.data.found
    assert others == [first] * 4
    same = [name for name, value in run.data.changed.items() if value == first[name]]
    assert same == []
    assert run["end"].task.stdout == "heard\n"


class Incomparable:
    """A handler that can be compared with nothing, and has no hash."""

    __hash__ = None  # type: ignore[assignment] # a class without a hash has None here

    def __eq__(self, other: object) -> bool:
        """Refuse."""
        raise TypeError(other)

    def __call__(self, *_: object) -> None:
        """Do nothing."""


def handle_oddly():
    """A handler that `signal.signal` cannot return when it is replaced."""
    signal.signal(signal.SIGUSR1, Incomparable())


class Equal:
    """It is equal to everything."""

    __hash__ = None  # type: ignore[assignment] # a class without a hash has None here

    def __eq__(self, other: object) -> bool:
        """Agree."""
        return True

    def __call__(self, *_: object) -> None:
        """Do nothing."""


def put_equals():
    """What says that it is what was there before."""
    signal.signal(signal.SIGUSR1, Equal())
    sys.excepthook = sys.stdout = sys.stderr = sys.argv = Equal()  # type: ignore[assignment]  # a step may put any object there


def put_equal_argument():
    """The same in a list that is one."""
    sys.argv = [Equal() for _ in sys.argv]  # type: ignore[misc]  # a step may put any object there


def leave_waiting():
    """A signal that would end the process, and waits for being unblocked."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    signal.raise_signal(signal.SIGUSR1)  # to this thread: libraries have others


def close():
    """Both streams of output, as objects."""
    sys.stdout.close()
    sys.stderr.close()


def wrap():
    """Both streams, as programs do that want another encoding."""
    sys.stdout = io.TextIOWrapper(sys.stdout.buffer, encoding="utf-8")
    sys.stderr = io.TextIOWrapper(sys.stderr.buffer, encoding="utf-8")
    print("wrapped")


LEAVINGS = {
    "handler": handle_oddly,
    "signal": leave_waiting,
    "closed": close,
    "wrapped": wrap,
    "equals": put_equals,
    "arguments": put_equal_argument,
}


class Leaving(FlowSpec):
    """Each task does the same harm, one after the other on one worker."""

    way = Parameter("way", default="")

    @step
    def start(self):
        self.items = range(3)
        self.next(self.each, foreach="items")

    @step
    def each(self):
        self.pid, self.closed = os.getpid(), (sys.stdout.closed, sys.stderr.closed)
        self.handler, self.blocked = handling()
        LEAVINGS[self.way]()
        self.next(self.join)

    @step
    def join(self, inputs):
        self.found = {(each.closed, each.handler, each.blocked) for each in inputs}
        self.pids = {each.pid for each in inputs}
        self.next(self.end)

    @step
    def end(self):
        pass


def handling():
    """What this process does with SIGUSR1: the handler, and whether it is blocked.

    With the handler come the types of what else a step may have replaced.
    """
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    others = sys.excepthook, sys.stdout, sys.argv, sys.argv[0]
    handler = str(signal.getsignal(signal.SIGUSR1))
    return ", ".join([handler, *(type(each).__name__ for each in others)]), (
        signal.SIGUSR1 in blocked
    )


@pytest.mark.parametrize("way", LEAVINGS)
async def test_what_a_task_leaves_does_not_harm_the_next_one(engine, way):
    """Neither does it end the worker."""
    run = await engine.run(Leaving, way=way)
    default = f"{signal.Handlers.SIG_DFL}, builtin_function_or_method, TaskStream, list, str"
    assert run.data.found == {((False, False), default, False)}
    assert len(run.data.pids) == 1
    printed = "wrapped\n" if way == "wrapped" else ""
    assert [task.stdout for task in run["each"].tasks()] == [printed] * 3


class Bound(FlowSpec):
    """Async tasks side by side that each set their context."""

    @step
    def start(self):
        self.items = range(5)
        self.next(self.each, foreach="items")

    @step
    async def each(self):
        self.before = user.get(), decimal.getcontext().prec
        user.set(str(self.input))
        decimal.getcontext().prec = 10 + self.input
        await asyncio.sleep(0.1)
        self.after = user.get(), decimal.getcontext().prec
        self.next(self.join)

    @step
    def join(self, inputs):
        self.all_before = {each.before for each in inputs}
        self.all_after = [each.after for each in inputs]
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_async_tasks_that_run_at_once_have_each_its_own_context(engine):
    """The settings of `decimal` as well, which are one object that can be changed."""
    data = (await engine.run(Bound)).data
    assert data.all_before == {("nobody", 28)}
    assert data.all_after == [(str(number), 10 + number) for number in range(5)]


MODULE = """
    import decimal, os, signal, sys
    from contextvars import ContextVar
    from asyncflow import FlowSpec, step

    user = ContextVar("user")
    user.set("the module")
    decimal.getcontext().prec = 7
    sys.setrecursionlimit(2345)
    signal.signal(signal.SIGUSR1, print)
    os.umask(0o027)

    def found():
        umask = os.umask(0)
        os.umask(umask)
        usr1 = signal.getsignal(signal.SIGUSR1) is print
        return user.get(), decimal.getcontext().prec, sys.getrecursionlimit(), usr1, umask

    class Set(FlowSpec):
        @step
        async def start(self):
            self.found = [found()]
            decimal.getcontext().prec = 3
            self.next(self.end)

        @step
        def end(self):
            self.found = [*self.found, found()]
            signal.signal(signal.SIGUSR1, signal.SIG_DFL)
            os.umask(0o077)

    if __name__ == "__main__":
        Set()
"""


@pytest.mark.parametrize("command", [["set.py", "run"], ["-m", "asyncflow", "run", "set.py"]])
def test_what_the_module_of_a_flow_sets_is_set_for_its_tasks(tmp_path, command):
    """Whether its worker was forked out of the program that had imported it, or not."""
    (tmp_path / "set.py").write_text(textwrap.dedent(MODULE))
    command = [sys.executable, *command, "--workers", "1", "--json"]
    told = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=180)
    assert told.stdout
    script = "import asyncflow; print(asyncflow.Flow('Set').latest_run.data.found)"
    found = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, check=True, capture_output=True, timeout=180
    )
    assert eval(found.stdout) == [("the module", 7, 2345, True, 0o027)] * 2  # noqa: S307 - ours


async def test_a_module_that_was_imported_for_one_run_has_set_it_for_the_next(
    engine, tmp_path, monkeypatch
):
    """It is not imported again, and other flows' tasks run in between."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "setting_module.py").write_text(textwrap.dedent(MODULE))
    mask, limit = umask(), sys.getrecursionlimit()
    handler = signal.getsignal(signal.SIGUSR1)
    precision = decimal.getcontext().prec
    try:
        import setting_module  # type: ignore[import-not-found] # made above
    finally:
        os.umask(mask)
        sys.setrecursionlimit(limit)
        signal.signal(signal.SIGUSR1, handler)
        decimal.getcontext().prec = precision
    first = (await engine.run(setting_module.Set)).data.found
    await engine.run(Changing)
    second = (await engine.run(setting_module.Set)).data.found
    assert first == second == [("the module", 7, 2345, True, 0o027)] * 2


def secretive(value):
    """A flow that only comes with its run, whose middle step has this value in its environment."""

    class Secretive(FlowSpec):
        @step
        def start(self):
            self.next(self.work)

        @environment(vars={NAME: value})
        @step
        def work(self):
            self.found = zlib.crc32(os.environ[NAME].encode())
            self.next(self.end)

        @step
        def end(self):
            pass

    return Secretive


def files_with(store, text):
    """The files of a store in which there is a text."""
    return [path for path in store.rglob("*") if path.is_file() and text in path.read_bytes()]


async def test_a_value_of_environment_is_never_in_the_store(engine, store):
    """Nor in an event; whoever resumes the run gives the value that holds then."""
    word = "hunter" + str(2)  # put together here: the source of this file is in the store as well
    run = await engine.run(secretive(word * 2))
    assert run["work"].task["found"].data == zlib.crc32(word.encode() * 2)
    told = "".join(to_json(event) for event in run.events())
    assert NAME in told
    assert word not in told
    assert word.encode().hex() not in told
    assert files_with(store, b"Secretive")
    assert not files_with(store, word.encode())
    resumed = await engine.resume(secretive("another"), origin=run, step="work")
    assert resumed["work"].task["found"].data == zlib.crc32(b"another")


async def test_variables_that_no_packet_could_hold_are_refused_before_anything_runs(engine):
    """The error says how many bytes there may be."""
    with pytest.raises(FlowError, match="have 40019 bytes, and a flow may have 32768"):
        await engine.start(secretive("x" * 40_000))


SCRIPT = """
    import os
    from asyncflow import FlowSpec, step

    with open("imported", "a") as file:
        file.write(f"{__name__} {os.getpid()}\\n")

    class Guarded(FlowSpec):
        @step
        def start(self):
            self.items = range(4)
            self.next(self.work, foreach="items")

        @step
        def work(self):
            import time
            time.sleep(0.05)
            self.next(self.join)

        @step
        def join(self, inputs):
            self.next(self.end)

        @step
        def end(self):
            pass

    if __name__ == "__main__":
        with open("guarded", "a") as file:
            file.write(f"{os.getpid()}\\n")
        Guarded()
"""


@pytest.mark.parametrize(
    "command", [["guarded.py", "run"], ["-m", "asyncflow", "run", "guarded.py"]]
)
def test_a_workers_import_does_not_run_the_main_guard(tmp_path, command):
    """The file is imported once by each process, and its guard is entered by the program alone."""
    (tmp_path / "guarded.py").write_text(textwrap.dedent(SCRIPT))
    subprocess.run(
        [sys.executable, *command, "--workers", "2"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        timeout=180,
    )
    imports = [line.split() for line in (tmp_path / "imported").read_text().splitlines()]
    assert 1 <= len(imports) <= 3  # the program, and workers that were not forked out of it
    assert len({pid for _, pid in imports}) == len(imports)
    names = [name for name, _ in imports if name == "__main__"]
    guard = Path(tmp_path / "guarded")
    entered = guard.read_text().split() if guard.exists() else []
    assert len(entered) == len(names) == (command[0] == "guarded.py")
