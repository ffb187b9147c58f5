"""What tasks print from C, in pieces, by the million, and after their end."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
from contextlib import suppress

import anyio
import pytest

from asyncflow import Engine, Flow, FlowSpec, Parameter, events, step
from asyncflow.errors import JournalError, RunFailedError
from asyncflow.scheduling.run_driver import RunDriver
from asyncflow.scheduling.run_services import BACKLOG_BYTES
from asyncflow.store.journal import JournalWriter
from asyncflow.workers.local.pool import WorkerPool

logger = logging.getLogger("asyncflow_test_output")

LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} (\[\d{16}/\w+/\d+ \(pid \d+\)\] )?(.*)")


@pytest.fixture
async def engine(store):
    """An open engine with two workers."""
    async with Engine(store=store, workers=2) as opened:
        yield opened


class FromBelow(FlowSpec):
    """Prints past Python's streams, and by way of its logging."""

    @step
    def start(self):
        libc = ctypes.CDLL(None)
        print("python first")
        libc.puts(b"puts from C")
        libc.printf(b"printf from C, %d\n", 7)
        libc.fflush(None)
        libc.write(2, b"write from C\n", 13)
        os.write(1, b"raw\n")
        subprocess.run(["sh", "-c", "echo shell; echo shell err >&2"], check=True)
        logger.addHandler(logging.StreamHandler())
        logger.warning("a warning")
        libc.puts(b"left in C's buffer")
        self.next(self.end)

    @step
    def end(self):
        ctypes.CDLL(None).puts(b"of the end")


class AsyncPieces(FlowSpec):
    """Async tasks that print pieces, bytes that are not UTF-8, progress, and from a thread."""

    @step
    def start(self):
        self.names = ["a", "b", "c"]
        self.next(self.talk, foreach="names")

    @step
    async def talk(self):
        name = self.input
        for percent in range(0, 101, 50):
            print(f"\r{name} {percent}%", end="", file=sys.stderr)
            await asyncio.sleep(0.01)
        print(file=sys.stderr)
        for piece in f"{name}1 {name}2":
            print(piece, end="")
            await asyncio.sleep(0)
        print()
        sys.stdout.buffer.write(name.encode() + b" \xff\xfe\n")
        thread = threading.Thread(target=print, args=(f"{name} in a thread",))
        thread.start()
        thread.join()
        await asyncio.to_thread(print, f"{name} to a thread")
        print(name * 1_000_000)
        print(f"{name} without an end", end="")
        self.next(self.join)

    @step
    def join(self, inputs):
        self.next(self.end)

    @step
    def end(self):
        pass


class Lingering(FlowSpec):
    """Starts something that goes on printing after its task has ended."""

    @step
    def start(self):
        code = "import time; print('early', flush=True); time.sleep(60); print('late')"
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        print(child.stdout.readline().decode(), end="")
        subprocess.Popen(["sh", "-c", "while echo noise; do sleep 0.01; done"])
        self.next(self.end)

    @step
    def end(self):
        print("the end")


KEPT = """
    import asyncio, functools, logging, sys
    from asyncflow import FlowSpec, step

    logging.basicConfig(level=logging.INFO, format="logged %(message)s")
    write = sys.stdout.write
    err, out = sys.__stderr__, sys.__stdout__
    print("waiting in the program's buffer, ", end="")

    def tell(number):
        logging.info("%s", number)
        write(f"written {number}, ")
        print("printed", number, file=out)
        print("printed", number, file=err)

    class Kept(FlowSpec):
        @step
        def start(self):
            tell("start")
            self.items = [0, 1, 2]
            self.next(self.each, foreach="items")

        @step
        async def each(self):
            for _ in range(2):
                tell(self.input)
                await asyncio.sleep(0.1)
            self.next(self.join)

        @step
        def join(self, inputs):
            self.next(self.end)

        @step
        def end(self):
            pass

    if __name__ == "__main__":
        Kept()
"""


@pytest.mark.parametrize("command", [["kept.py", "run"], ["-m", "asyncflow", "run", "kept.py"]])
def test_whoever_keeps_the_streams_that_a_module_had_prints_to_the_task(tmp_path, store, command):
    """As logging handlers do: in async tasks side by side, however the run is started."""
    (tmp_path / "kept.py").write_text(textwrap.dedent(KEPT))
    options = ["--workers", "1", "--store", str(store)]
    done = subprocess.run(
        [sys.executable, *command, *options],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
        timeout=180,
    )
    run = Flow("Kept", store=store).latest_run
    assert run is not None
    assert run["start"].task.stdout.endswith("written start, printed start\n")
    tasks = sorted(run["each"], key=lambda task: int(task.id))
    for number, task in enumerate(tasks):
        assert task.stdout == f"written {number}, printed {number}\n" * 2
        assert task.stderr == f"logged {number}\nprinted {number}\n" * 2
    imports = 1 if command[0] == "kept.py" else 2  # there it is the worker that imports the file
    assert done.stdout.count("waiting in the program's buffer") == imports


async def test_what_c_code_and_shells_print_is_there_in_order(engine):
    """Also what C still has in its buffer when the task ends; stdout and stderr apart."""
    run = await engine.run(FromBelow)
    task = run["start"].task
    assert task.stdout.splitlines() == [
        "python first",
        "puts from C",
        "printf from C, 7",
        "raw",
        "shell",
        "left in C's buffer",
    ]
    assert task.stderr.splitlines() == ["write from C", "shell err", "a warning"]
    assert run["end"].task.stdout == "of the end\n"


async def test_async_tasks_print_pieces_bytes_and_from_threads_each_its_own(engine):
    """Whatever they print in turns, each task's output is what it printed, in its order."""
    run = await engine.run(AsyncPieces)
    assert len(list(run["talk"])) == 3
    for task in run["talk"]:
        name = task.stdout[0]
        assert task.stderr == f"\r{name} 0%\r{name} 50%\r{name} 100%\n"
        assert task.stdout == (
            f"{name}1 {name}2\n{name} \\xff\\xfe\n{name} in a thread\n{name} to a thread\n"
            + name * 1_000_000
            + f"\n{name} without an end"
        )


async def test_what_a_task_leaves_behind_may_go_on_printing(engine):
    """It disturbs nobody, and ends with its worker."""
    run = await engine.run(Lingering)
    assert run["start"].task.stdout.startswith("early\n")
    assert "the end\n" in run["end"].task.stdout


class Progress(FlowSpec):
    """A progress bar, and beside it a task that prints lines."""

    @step
    def start(self):
        self.kinds = ["bar", "lines"]
        self.next(self.show, foreach="kinds")

    @step
    def show(self):
        if self.input == "bar":
            for done in range(200):
                sys.stdout.write(f"\rdone {done}/199")
                sys.stdout.flush()
                os.write(2, b"half a ")
                os.write(2, b"line\n")
            print()
        else:
            for number in range(2000):
                sys.stdout.write(f"line {number}")
                sys.stdout.flush()
                sys.stdout.write(" of many\n")
        self.next(self.join)

    @step
    def join(self, inputs):
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_a_progress_bar_is_kept_as_it_was_printed(engine):
    """Carriage returns stay in events and logs."""
    handle = await engine.start(Progress)
    seen = [event async for event in handle.events() if isinstance(event, events.TaskLogged)]
    run = await handle
    bar = "".join(f"\rdone {done}/199" for done in range(200)) + "\n"
    assert next(iter(run["show"])).stdout == bar
    task = next(iter(run["show"])).id
    ours = [each for each in seen if each.task_id == task and each.stream == "stdout"]
    assert "".join(each.line + each.end for each in ours) == bar


def test_lines_on_the_terminal_stay_whole_when_tasks_print_at_once(store, tmp_path):
    """Each line has its task's prefix and all of its text; of a bar the last state is shown."""
    command = [sys.executable, "-m", "asyncflow", "run", f"{__file__}:Progress", "--workers", "2"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=180, check=True)
    found = [LINE.fullmatch(line) for line in done.stdout.decode().splitlines()]
    assert all(found)
    texts = [match[2] for match in found if match and match[1] and "/show/" in match[1]]
    assert [text for text in texts if text.startswith("line")] == [
        f"line {number} of many" for number in range(2000)
    ]
    assert texts.count("half a line") == 200
    assert texts.count("done 199/199") == 1


class LastWords(FlowSpec):
    """Its only task says something, and its worker is gone in the same moment."""

    @step
    def start(self):
        print("a line before")
        print("so it ends", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_what_a_task_printed_last_before_its_worker_was_killed_is_there(engine):
    """It may be all that tells why."""
    with pytest.raises(RunFailedError) as caught:
        await engine.run(LastWords)
    assert caught.value.run["start"].task.stdout == "a line before\nso it ends\n"


class AsyncFlood(FlowSpec):
    """One async task prints far more than may wait for the journal."""

    @step
    async def start(self):
        for number in range(AsyncFlood.lines):
            print(number, "x" * 50_000)
        self.next(self.end)

    @step
    def end(self):
        pass

    lines = 8 * BACKLOG_BYTES // 50_000


class DefFlood(FlowSpec):
    """One `def` task does."""

    @step
    def start(self):
        for number in range(AsyncFlood.lines):
            print(number, "x" * 50_000)
        self.next(self.end)

    @step
    def end(self):
        pass


@pytest.mark.parametrize("flow", [AsyncFlood, DefFlood])
async def test_a_task_that_outruns_the_journal_waits_for_it(engine, monkeypatch, flow):
    """The engine holds a bounded part of what it prints meanwhile, and nothing is lost."""
    paused, waiting = threading.Event(), []
    pause, write, tell = WorkerPool.pause, JournalWriter.write, RunDriver.tell

    def noting_pause(pool, worker):
        pause(pool, worker)
        paused.set()

    def slow_write(journal, frames):
        if len(frames) > 100_000 and not paused.wait(180):
            message = "no worker was made to wait"
            raise JournalError(message)
        write(journal, frames)

    def noting_tell(driver, *facts):
        tell(driver, *facts)
        waiting.append(driver.backlog_bytes)

    monkeypatch.setattr(WorkerPool, "pause", noting_pause)
    monkeypatch.setattr(JournalWriter, "write", slow_write)
    monkeypatch.setattr(RunDriver, "tell", noting_tell)
    with anyio.fail_after(200):
        run = await engine.run(flow)
    lines = run["start"].task.stdout.splitlines()
    assert [line.split()[0] for line in lines] == [str(number) for number in range(len(lines))]
    assert len(lines) == AsyncFlood.lines
    assert BACKLOG_BYTES < max(waiting) < 2 * BACKLOG_BYTES


class Million(FlowSpec):
    """Prints as many lines as it is told to."""

    lines = Parameter("lines", default=1000)

    @step
    def start(self):
        for number in range(self.lines):
            print("line", number)
        self.next(self.end)

    @step
    def end(self):
        pass


@pytest.mark.slow
def test_a_million_lines_cost_no_memory(store, tmp_path):
    """However many lines a task prints, `asyncflow run` holds some ten thousand of them at a time.

    That is why it takes more for 500,000 lines than for 50,000, and no more for 2,000,000.
    """
    (tmp_path / "measure.py").write_text(
        textwrap.dedent("""
            import resource, subprocess, sys
            with open("log", "wb") as log:
                subprocess.run(sys.argv[1:], stdout=log, check=True)
            print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
        """)
    )

    def kibibytes(lines):
        run = ["-m", "asyncflow", "run", f"{__file__}:Million", "--lines", str(lines)]
        command = [sys.executable, "measure.py", sys.executable, *run]
        log = tmp_path / "log"
        log.write_bytes(b"")
        with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE) as measuring:
            size, found = -1, 0
            while measuring.poll() is None and size < found:  # as long as more is printed
                size = found
                with suppress(subprocess.TimeoutExpired):
                    measuring.wait(120)
                found = log.stat().st_size
            if measuring.poll() is None:
                measuring.kill()
            told = measuring.stdout.read()
        with log.open() as printed:
            numbers = [line.split()[-1] for line in printed if "] line " in line]
        assert numbers == [str(number) for number in range(lines)]
        return int(told)

    assert kibibytes(1_000_000) < kibibytes(50_000) + 32 * 1024
