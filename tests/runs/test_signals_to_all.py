"""A signal that every process of a program gets, as from systemd: the engine's process decides."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import anyio.to_thread
import psutil
import pytest

from asyncflow import Engine, Flow, FlowSpec, events, step
from asyncflow.errors import RunFailedError
from asyncflow.values import Status

FLOW = """
    import asyncio, os, signal, subprocess, sys, time
    from asyncflow import FlowSpec, Parameter, step

    SLEEP = [sys.executable, "-c", "print('at work', flush=True); import time; time.sleep(600)"]

    class Kinds(FlowSpec):
        @step
        def start(self):
            self.next(self.STEP)

        @step
        def plain(self):
            print("at work", flush=True)
            time.sleep(600)
            self.next(self.end)

        @step
        async def async_(self):
            print("at work", flush=True)
            await asyncio.sleep(600)
            self.next(self.end)

        @step
        def child(self):
            subprocess.run(SLEEP, check=True)
            self.next(self.end)

        @step
        async def async_child(self):
            child = await asyncio.create_subprocess_exec(*SLEEP)
            assert await child.wait() == 0
            self.next(self.end)

        @step
        def handler(self):
            def stop(number, frame):
                raise OSError(f"the step has received signal {number}")
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, stop)
            print("at work", flush=True)
            time.sleep(600)
            self.next(self.end)

        @step
        def end(self):
            pass
"""
STEPS = ("plain", "async_", "child", "async_child", "handler")
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def write_flow(folder: Path, kind: str) -> Path:
    """The flow whose second step is this one."""
    text = textwrap.dedent(FLOW).replace("self.STEP", f"self.{kind}")
    for other in STEPS:
        if other != kind:  # nothing would lead to it
            text = re.sub(rf"(?s)    @step\n    (async )?def {other}\(.*?(?=    @step)", "", text)
    file = folder / "kinds.py"
    file.write_text(text)
    return file


@contextmanager
def started(command: list[object], words: str):
    """A program that has printed these words: its process, and all that come from it."""
    with subprocess.Popen(
        [sys.executable, *map(str, command)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as program:
        try:
            assert program.stdout is not None
            for line in program.stdout:
                if words in line:
                    break
            yield program, psutil.Process(program.pid).children(recursive=True)
        finally:
            program.kill()


def send_to_all(number: int, processes: list[psutil.Process]) -> None:
    """As the kernel does, the oldest first."""
    for pid in [process.pid for process in processes]:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def gone(processes: list[psutil.Process]) -> bool:
    """Whether all of them end."""
    return not psutil.wait_procs(processes, timeout=180)[1]


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("kind", STEPS)
def test_a_run_whose_processes_all_get_a_signal_is_cancelled(store, tmp_path, kind, number):
    """As if its first process alone had it: the run has not failed, and can be resumed."""
    command = ["-m", "asyncflow", "run", write_flow(tmp_path, kind), "--workers=1"]
    with started(command, "at work") as (program, children):
        everybody = [psutil.Process(program.pid), *children]
        # What a step has started must not be told before the rest, or the step fails by itself.
        send_to_all(number, everybody if "child" in kind else everybody[::-1])
        out, err = program.communicate(timeout=180)
        assert gone(children)
    assert program.returncode == 128 + number, err
    run = Flow("Kinds").latest_run
    assert run is not None
    assert run.status is Status.CANCELLED
    assert f"Workflow cancelled: {signal.Signals(number).name}." in out
    assert err.count(f"--origin-run-id {run.id}") == 1
    [task] = run[kind]
    assert task.exception is None or task.status is Status.CANCELLED or kind == "handler"


# --- a program that holds an engine -------------------------------------------------------------

PROGRAM = """
    import asyncio, signal, sys
    import asyncflow
    from asyncflow import Engine
    from asyncflow.errors import RunCancelledError

    HANDLES = sys.argv[2] == "handles"

    async def main():
        loop, asked = asyncio.get_running_loop(), asyncio.Event()
        if HANDLES:
            loop.add_signal_handler(signal.SIGTERM, asked.set)
        async with Engine(workers=1) as engine:
            handle = await engine.start(asyncflow.flow.loader.load_flow(sys.argv[1]))
            async for event in handle.events():
                if isinstance(event, asyncflow.events.TaskLogged):
                    break
            print("at work", flush=True)
            await asked.wait()
            print("asked to end", flush=True)
            decision = await asyncio.to_thread(sys.stdin.readline)
            print("status", handle.status, flush=True)
            handle.cancel(reason="the program ends")
            try:
                await handle
            except RunCancelledError as error:
                print("cancelled", error.run.status, flush=True)

    asyncio.run(main())
"""


@pytest.mark.parametrize("kind", ["plain", "async_", "handler"])
def test_a_program_that_holds_an_engine_may_die_at_once(store, tmp_path, kind):
    """Nothing is left of it, and the run is interrupted."""
    (tmp_path / "program.py").write_text(textwrap.dedent(PROGRAM))
    command = [tmp_path / "program.py", write_flow(tmp_path, kind), "dies"]
    with started(command, "at work") as (program, children):
        send_to_all(signal.SIGTERM, [psutil.Process(program.pid), *children])
        assert program.wait(timeout=180) == -signal.SIGTERM
        assert gone(children)
    run = Flow("Kinds").latest_run
    assert run is not None
    assert run.status is Status.INTERRUPTED


@pytest.mark.parametrize("kind", ["plain", "async_"])
def test_a_program_that_holds_an_engine_has_its_time_to_decide(store, tmp_path, kind):
    """Its workers go on until it says what is to be."""
    (tmp_path / "program.py").write_text(textwrap.dedent(PROGRAM))
    command = [tmp_path / "program.py", write_flow(tmp_path, kind), "handles"]
    with started(command, "at work") as (program, children):
        send_to_all(signal.SIGTERM, [psutil.Process(program.pid), *children])
        assert program.stdout is not None
        assert program.stdout.readline() == "asked to end\n"
        out, _ = program.communicate("go on\n", timeout=180)
        assert out.splitlines() == ["status running", "cancelled cancelled"]
        assert program.returncode == 0
        assert gone(children)


# --- workers ------------------------------------------------------------------------------------


class Patient(FlowSpec):
    """Its two tasks tell their worker's process, and wait until they may go on."""

    @step
    def start(self):
        self.next(self.waiting)

    @step
    async def waiting(self):
        await _wait("async")
        self.next(self.end)

    @step
    def end(self):
        Path("def").write_text(str(os.getpid()))
        while not Path("go").exists():
            time.sleep(0.01)


async def _wait(name: str) -> None:
    Path(name).write_text(str(os.getpid()))
    while not Path("go on").exists():  # noqa: ASYNC110 - another process makes it
        await anyio.sleep(0.01)


def worker_at(name: str) -> psutil.Process:
    """The worker whose task has come to its wait."""
    while not (Path(name).exists() and Path(name).read_text()):
        time.sleep(0.01)
    return psutil.Process(int(Path(name).read_text()))


@pytest.mark.parametrize("number", SIGNALS)
async def test_workers_go_on_when_their_engine_does(store, tmp_path, monkeypatch, number):
    """Both kinds of steps, whatever the signal: no attempt is lost."""
    monkeypatch.chdir(tmp_path)
    async with Engine(workers=1) as engine:
        handle = await engine.start(Patient)
        for name, go in (("async", "go on"), ("def", "go")):
            worker = await anyio.to_thread.run_sync(worker_at, name)
            fork_server = worker.parent()
            assert fork_server is not None
            send_to_all(number, [fork_server, worker])
            Path(go).touch()
        run = await handle
    assert not [event for event in run.events() if isinstance(event, events.TaskFailed)]


@pytest.mark.parametrize(
    ("number", "exception"),
    [(signal.SIGTERM, "SystemExit"), (signal.SIGINT, "KeyboardInterrupt")],
)
async def test_a_worker_that_alone_gets_a_signal_ends_its_step(
    store, tmp_path, monkeypatch, number, exception
):
    """Somebody means this process: the attempt fails, and the step can close what it has open."""
    monkeypatch.chdir(tmp_path)
    Path("go on").touch()
    async with Engine(workers=1) as engine:
        handle = await engine.start(Patient)
        worker = await anyio.to_thread.run_sync(worker_at, "def")
        worker.send_signal(number)
        with pytest.raises(RunFailedError) as caught:
            await handle
    assert caught.value.failure.exception_type == exception


class Inherits(FlowSpec):
    """Shows with which signals a process begins that a step has started."""

    @step
    def start(self):
        show = "import signal; print(signal.pthread_sigmask(0, []))"
        show += "; print([signal.getsignal(n).name for n in (1, 15)])"
        self.executed = subprocess.check_output([sys.executable, "-c", show], text=True)
        reading, writing = os.pipe()
        if os.fork() == 0:
            handlers = [signal.getsignal(number) for number in (1, 15)]
            ours = [signal.SIG_DFL, signal.SIG_DFL]
            said = handlers == ours and signal.getsignal(2) is signal.default_int_handler
            os.write(writing, str([said, signal.pthread_sigmask(0, [])]).encode())
            os._exit(0)
        self.forked = os.read(reading, 1000).decode()
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_what_a_step_starts_begins_with_the_signals_defaults(store):
    """Nothing is blocked or ignored there, forked or executed."""
    async with Engine(workers=1) as engine:
        run = await engine.run(Inherits)
    assert run.data.executed == "set()\n['SIG_DFL', 'SIG_DFL']\n"
    assert run.data.forked == "[True, set()]"
