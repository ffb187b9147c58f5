"""Failures as text: whatever the exception is, it is told in a bounded number of words."""

from __future__ import annotations

import asyncio
import getpass
import os
import pdb  # noqa: T100 - what a step may import
import pty
import subprocess
import sys
import textwrap
import threading
from contextlib import suppress
from pathlib import Path

import pytest

import asyncflow
from asyncflow import Engine, FlowSpec, Parameter, catch, run_sync, step, timeout
from asyncflow._support.tracebacks import describe_exception, with_final_line
from asyncflow.errors import RunFailedError
from asyncflow.flow.loader import load_file
from tests.support.command_line import own_frames


class Verbose(FlowSpec):
    """Fails with a very long message, first caught and then not."""

    length = Parameter("length", default=10_000_000)

    @catch(var="failure", print_exception=False)
    @step
    def start(self):
        if self.length:
            raise ValueError("<" + "é" * self.length + ">")
        self.next(self.end)

    @step
    def end(self):
        self.kept = len(self.failure.message)
        raise ValueError("<" + "é" * self.length + ">")


@pytest.mark.parametrize("length", [1_000, 60_000, 300_000, 10_000_000])
async def test_a_failure_with_a_message_of_megabytes_is_told(store, length):
    """It is caught, handed on and told like any other, its middle left out where it is too long."""
    async with Engine(store=store, workers=1) as engine:
        with pytest.raises(RunFailedError) as caught:
            await engine.run(Verbose, length=length)
    failure = caught.value.failure
    assert failure.step == "end"
    assert failure.message[0] + failure.message[-1] == "<>"
    assert (f"{2 * length + 2 - 2**14} bytes are left out" in failure.message) == (length > 2**13)
    assert len(failure.message.encode()) < 2**14 + 100
    assert len(failure.traceback.encode()) < 2**16 + 100
    assert failure.traceback.startswith("Traceback (most recent call last):")


class Locked(FlowSpec):
    """Keeps what cannot be pickled, or what does not let itself be."""

    own = Parameter("own", default=False)

    @step
    def start(self):
        self.kept = [Stubborn() if self.own else threading.Lock()]
        self.next(self.end)

    @step
    def end(self):
        pass


class Stubborn:
    """Has a reason of its own."""

    def __reduce__(self):
        raise ValueError("my own reason")


@pytest.mark.parametrize("own", [False, True])
async def test_of_a_value_that_cannot_be_pickled_no_frame_of_ours_is_shown(store, own):
    """The message says which member it is; the user's code that had to do with it is shown."""
    async with Engine(store=store, workers=1) as engine:
        with pytest.raises(RunFailedError) as caught:
            await engine.run(Locked, own=own)
    failure = caught.value.failure
    assert "self.kept[0] is a" in failure.message
    assert "cloudpickle" not in failure.traceback
    assert ('raise ValueError("my own reason")' in failure.traceback) == own


def test_what_is_cut_out_is_cut_between_characters():
    """The text is readable on both sides of the cut."""
    for shift in range(4):
        described = describe_exception(ValueError("x" * shift + "🙂" * 10_000))
        head, _, tail = described.message.partition("\n… ")
        assert set(head) <= {"x", "🙂"}
        assert set(tail.partition(" …\n")[2]) == {"🙂"}


@pytest.mark.parametrize("explicit", [True, False])
def test_of_thousands_of_causes_the_first_and_the_last_are_told(explicit):
    """The traceback is cut in the middle, whichever way one exception came from another."""
    error: Exception = KeyError("the first of all")
    for number in range(5_000):
        later = ValueError(f"number {number}")
        later.__context__, later.__cause__ = error, error if explicit else None
        later.__suppress_context__ = explicit
        error = later
    trace = describe_exception(error).traceback
    assert trace.startswith("KeyError: 'the first of all'\n")
    assert trace.endswith("ValueError: number 4999\n")
    assert " bytes are left out …\n" in trace


def test_an_exception_with_a_lone_surrogate_is_told():
    """As its escape."""
    assert describe_exception(OSError("caf\udce9")).message == r"caf\udce9"


async def test_an_async_step_that_took_too_long_tells_where_it_waited_and_why_it_was_stopped(store):
    """Its traceback ends with the timeout, not with how the step was told of it."""
    async with Engine(store=store, workers=1) as engine:
        with pytest.raises(RunFailedError) as caught:
            await engine.run(Slow)
    lines = caught.value.failure.traceback.splitlines()
    assert "    await asyncio.sleep(600)" in lines
    assert lines[-1] == "asyncflow.errors.TaskTimeoutError: it took longer than 0.2 s"


class Slow(FlowSpec):
    """Waits for longer than it may."""

    @timeout(seconds=0.2)
    @step
    async def start(self):
        await asyncio.sleep(600)
        self.next(self.end)

    @step
    def end(self):
        pass


class Uncountable(FlowSpec):
    """Fans out over what an earlier step has made and cannot be fanned out over."""

    @step
    def start(self):
        self.items = 5
        self.next(self.split)

    @step
    def split(self):
        self.next(self.work, foreach="items")

    @step
    def work(self):
        self.next(self.join)

    @step
    def join(self, inputs):
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_a_foreach_over_an_inherited_artifact_without_items_is_told_without_a_frame_of_ours(
    store,
):
    """The error names the step, the artifact, its type and where the step stands."""
    async with Engine(store=store, workers=1) as engine:
        with pytest.raises(RunFailedError) as caught:
            await engine.run(Uncountable)
    (line,) = caught.value.failure.traceback.splitlines()
    assert line.startswith(f"asyncflow.errors.TransitionError: {__file__}:")
    assert "step 'split'" in line
    assert "self.items has no items: it is of type 'int'" in line


def test_what_a_step_raised_as_it_was_stopped_is_told_before_why_it_was():
    """An error of its own stays; nothing is made up where there is no traceback."""
    assert (
        with_final_line("at\nOSError: full\n", "Late", "so long")
        == "at\nOSError: full\nLate: so long\n"
    )
    assert with_final_line("at\nSystemExit: 143\n", "Late", "so long") == "at\nLate: so long\n"
    assert with_final_line("", "Late", "so long") == ""


class Odd(FlowSpec):
    """Ends a step as nobody should, or a process that it has forked."""

    fork = Parameter("fork", default=False)

    @step
    async def start(self):
        if not self.fork:
            raise StopIteration
        self.next(self.forks)

    @step
    def forks(self):
        if os.fork() == 0:
            raise ValueError
        os.wait()
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_of_a_stop_iteration_in_an_async_step_no_frame_of_ours_is_shown(store):
    """Python makes another exception of it in our code; the user's line is shown."""
    async with Engine(store=store, workers=1) as engine:
        with pytest.raises(RunFailedError) as caught:
            await engine.run(Odd)
    told = caught.value.failure.traceback
    assert "            raise StopIteration\n".strip() in told
    assert told.endswith("RuntimeError: coroutine raised StopIteration\n")
    assert not own_frames(told)


def debug():
    """As somebody does who wants to see what goes on."""
    breakpoint()  # noqa: T100 - that is what is examined


def debug_here():
    """The same without the hook."""
    pdb.set_trace()  # noqa: T100 - that is what is examined


ASKING = {
    "input": (lambda: input("which one? "), "EOFError", "Parameter"),
    "getpass": (getpass.getpass, "EOFError", "Parameter"),
    "breakpoint": (debug, "bdb.BdbQuit", "PYTHONBREAKPOINT"),
    "pdb": (debug_here, "bdb.BdbQuit", "PYTHONBREAKPOINT"),
}


class Asking(FlowSpec):
    """Wants somebody to type something."""

    way = Parameter("way", default="")

    @step
    def start(self):
        self.answer = ASKING[self.way][0]()
        self.next(self.end)

    @step
    def end(self):
        pass


@pytest.mark.parametrize("way", ASKING)
async def test_a_step_that_wants_a_terminal_is_told_that_it_has_none_and_what_to_do(store, way):
    """In the message, and at the end of the traceback."""
    _, kind, word = ASKING[way]
    async with Engine(store=store, workers=1) as engine:
        with pytest.raises(RunFailedError, match=f"a step has no terminal.*{word}") as raised:
            await engine.run(Asking, way=way)
    failure = raised.value.failure
    assert failure.exception_type == kind
    assert failure.traceback.endswith(f": {failure.message}\n")


ON_TERMINAL = """
    import getpass
    from asyncflow import FlowSpec, step

    class OnTerminal(FlowSpec):
        @step
        def start(self):
            self.word = getpass.getpass("password: ")
            self.next(self.end)

        @step
        def end(self):
            pass

    if __name__ == "__main__":
        OnTerminal()
"""


def test_on_a_terminal_a_step_that_asks_for_a_password_fails_as_well(store, tmp_path):
    """A process in the background that reads from a terminal is stopped, unless it sees to that."""
    (tmp_path / "terminal.py").write_text(textwrap.dedent(ON_TERMINAL))
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(tmp_path)
        command = [sys.executable, "terminal.py", "run", "--store", str(store)]
        os.execv(sys.executable, command)  # noqa: S606 - this test's own
    shown = b""
    with suppress(OSError):  # the other end is closed
        while piece := os.read(terminal, 1 << 16):
            shown += piece
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
    assert b"a step has no terminal to read from" in shown, shown.decode()


async def test_a_step_can_be_debugged_by_what_the_environment_names(store, tmp_path, monkeypatch):
    """`breakpoint()` calls it in the worker, as in any process."""
    (tmp_path / "listening.py").write_text("def set_trace():\n    print('it listens')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONBREAKPOINT", "listening.set_trace")
    async with Engine(store=store, workers=1) as engine:
        run = await engine.run(Asking, way="breakpoint")
    assert run["start"].task.stdout == "it listens\n"


async def test_of_a_forked_process_that_fails_no_frame_of_ours_is_shown(store):
    """Its traceback begins in the step."""
    async with Engine(store=store, workers=1) as engine:
        run = await engine.run(Odd, fork=True)
    head, first, *_, last = run["forks"].task.stderr.splitlines()
    assert head == "Traceback (most recent call last):"
    assert first.startswith(f'  File "{__file__}"')
    assert last == "ValueError"


class Plumbed(FlowSpec):
    """Fails in a thread of an event loop of its own."""

    @step
    def start(self):
        asyncio.run(self.look())
        self.next(self.end)

    async def look(self):
        """Fail elsewhere."""
        await asyncio.to_thread(self.fail)

    def fail(self):
        """Fail."""
        with asyncio.Runner() as runner:
            runner.get_loop().run_until_complete(None)  # type: ignore[arg-type]  # it refuses that

    @step
    def end(self):
        pass


async def test_what_python_runs_code_with_is_shown_only_where_it_has_raised(store):
    """The lines of an event loop and an executor between the user's lines tell nothing."""
    async with Engine(store=store, workers=1) as engine:
        with pytest.raises(RunFailedError) as caught:
            await engine.run(Plumbed)
    lines = caught.value.failure.traceback.splitlines()
    places = [line.split(", in ") for line in lines if line.startswith("  File ")]
    own = [name for file, name in places if __file__ in file]
    assert own == ["start", "look", "fail"]
    last = max(at for at, (file, _) in enumerate(places) if __file__ in file)
    assert last == len(own) - 1  # nothing lies between them
    assert "asyncio" in places[-1][0]


def test_of_a_file_that_is_no_python_only_the_place_is_shown(tmp_path):
    """How it was imported tells nothing."""
    (tmp_path / "broken.py").write_text("x = (")
    with pytest.raises(SyntaxError) as caught:
        load_file(tmp_path / "broken.py")
    told = describe_exception(caught.value).traceback.splitlines()
    places = [line for line in told if line.startswith("  File ")]
    assert [__file__ in places[0], *places[1:]] == [
        True,
        f'  File "{tmp_path / "broken.py"}", line 1',
    ]
    assert told[-1] == "SyntaxError: '(' was never closed"


UNGUARDED = """
import asyncio
import asyncflow
from asyncflow import Engine, FlowSpec, run_sync, step

class F(FlowSpec):
    @step
    def start(self):
        self.next(self.end)

    @step
    def end(self):
        pass

async def main():
    async with Engine(workers=1) as engine:
        await engine.run(F)

"""


@pytest.mark.parametrize(
    "call", ["run_sync(F)", "asyncio.run(asyncflow.run(F))", "asyncio.run(main())"]
)
def test_a_script_without_a_guard_is_told_once_and_what_to_do(store, tmp_path, call):
    """As a program or by the command line: one error, with the line, and no command to go on."""
    script = tmp_path / "script.py"
    script.write_text(UNGUARDED + call)
    what = f"{script}:19: this starts a run whenever the file is imported, which workers do"
    program = python(script)
    assert program.returncode == 1
    assert program.stderr.count("Traceback") == 1
    assert "resume" not in program.stderr
    last = program.stderr.splitlines()[-1]
    assert last.startswith("asyncflow.errors.RunFailedError: F/")
    assert what in last
    assert last.endswith('put it under `if __name__ == "__main__":`')
    command = python("-m", "asyncflow", "run", script)
    assert command.returncode == 2
    assert command.stderr.startswith(f"Error: {what}")
    assert command.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "name", ["asyncflow/worker.py", "pickle.py", "cloudpickle.py", "site-packages/anyio/flow.py"]
)
def test_a_users_file_that_is_called_like_one_of_a_library_is_shown(tmp_path, monkeypatch, name):
    """Whose a frame is follows from the folder in which a library is installed."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    script = tmp_path / name
    script.parent.mkdir(parents=True, exist_ok=True)
    script.write_text(
        "import json\ndef load():\n    json.loads('')\ndef main():\n    load()\nmain()\n"
    )
    with pytest.raises(ValueError, match="Expecting value") as caught:
        load_file(script)
    error = caught.value.with_traceback(caught.tb.tb_next)  # without this test's own frame
    told = describe_exception(error).traceback.splitlines()
    shown = [line.strip() for line in told if line.startswith("  File")]
    assert shown[:3] == [
        f'File "{script}", line 6, in <module>',
        f'File "{script}", line 5, in main',
        f'File "{script}", line 3, in load',
    ]


def test_a_package_whose_name_begins_with_ours_is_the_users():
    """It may be installed beside this one."""
    file = f"{Path(asyncflow.__file__).parent}_plugins/flow.py"
    with pytest.raises(ZeroDivisionError) as caught:
        exec(compile("1 / 0", file, "exec"))  # noqa: S102 - nothing may be written there
    assert f'File "{file}", line 1' in describe_exception(caught.value).traceback


def test_what_run_sync_raises_shows_no_frame_of_an_event_loop(store, tmp_path):
    """The caller's line, and what is wrong."""
    script = tmp_path / "script.py"
    script.write_text(UNGUARDED + "if __name__ == '__main__':\n    run_sync(F, nothing=1)")
    told = python(script).stderr.splitlines()
    assert told[1:3] == [f'  File "{script}", line 20, in <module>', "    run_sync(F, nothing=1)"]
    assert [line for line in told if "anyio" in line or "asyncio" in line] == []
    assert told[-1].startswith("asyncflow.errors.ParameterError: ")


def python(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run Python to its end."""
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


class Nested(FlowSpec):
    """Starts another run within a step."""

    @step
    def start(self):
        run_sync(Plumbed)
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_a_step_that_starts_an_engine_is_told_where_to_start_it(store):
    """A worker has none."""
    async with Engine(store=store, workers=1) as engine:
        with pytest.raises(RunFailedError, match="no engine can be started within a step"):
            await engine.run(Nested)
