"""What an application forks has nothing of its engine, and does nothing to it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import count
from pathlib import Path
from threading import Event

import psutil
import pytest

from asyncflow import Run
from asyncflow.store.layout import Layout
from asyncflow.store.limit_files import LimitFile
from asyncflow.values import Status
from tests.support.store_files import begin_journal

PROGRAM = """
    import asyncio, multiprocessing, os, signal, subprocess, sys, time
    from concurrent.futures import ProcessPoolExecutor
    from asyncflow import Engine, FlowSpec, Parameter, events, limit, step

    class Holding(FlowSpec):
        @limit("gpu", 1)
        @step
        async def start(self):
            print("begun")
            await asyncio.sleep(600)
            self.next(self.end)

        @step
        def end(self):
            pass

    class Tiny(FlowSpec):
        @step
        def start(self):
            self.next(self.end)

        @step
        def end(self):
            pass

    async def begin(engine):
        handle = await engine.start(Holding)
        async for event in handle.events(events.TaskLogged):
            return handle
"""
KILLED = """
    def wait(path):
        with open(path, "w") as pipe:
            print(os.getpid(), file=pipe)
        time.sleep(600)

    async def main():
        async with Engine(workers=1) as engine:
            handle = await begin(engine)
            {fork}
            print(handle.pathspec, flush=True)
            await asyncio.sleep(600)

    if __name__ == "__main__":
        asyncio.run(main())
"""
FORKS = {
    "pool": """
            pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork"))
            pool.submit(wait, sys.argv[1])""",
    "process": """
            context = multiprocessing.get_context("fork")
            context.Process(target=wait, args=[sys.argv[1]]).start()""",
    "fork": """
            if os.fork() == 0:
                wait(sys.argv[1])""",
    "in a thread": """
            pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork"))
            await asyncio.to_thread(pool.submit, wait, sys.argv[1])""",
}


def program(tmp_path, text):
    """The command of a program with these lines."""
    path = tmp_path / "program.py"
    path.write_text(textwrap.dedent(PROGRAM) + textwrap.dedent(text))
    return [sys.executable, str(path)]


@pytest.mark.parametrize("how", FORKS)
def test_a_child_that_outlives_the_program_holds_nothing_of_its_engine(tmp_path, how):
    """The program is killed: its run is interrupted, its workers end, and its limit is free."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    command = [*program(tmp_path, KILLED.replace("{fork}", FORKS[how])), str(pipe)]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as engine:
        assert engine.stdout is not None
        pathspec = engine.stdout.readline().strip()
        child = psutil.Process(int(pipe.read_text()))
        try:
            own = psutil.Process(engine.pid).children(recursive=True)
            own.remove(child)
            assert own
            engine.send_signal(signal.SIGKILL)
            engine.wait()
            store = tmp_path / ".asyncflow"
            assert Run(pathspec, store=store).status is Status.INTERRUPTED
            assert not psutil.wait_procs(own, timeout=180)[1]
            with LimitFile.open(Layout.open(store, create=False).limits, "gpu") as file:
                assert file.in_use() == 0
            assert child.is_running()
        finally:
            with suppress(psutil.NoSuchProcess):
                child.kill()


def count_open_under(folder):
    """How many files under a folder this process has open; a folder holds no lock and no reader."""
    found = 0
    for link in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # that of the listing itself
            target = link.readlink()
            found += target.is_relative_to(folder) and not target.is_dir()
    return found


def test_a_child_that_is_forked_while_files_are_opened_has_none_of_them(tmp_path):
    """Whatever threads are just opening or closing."""
    stop = Event()
    LimitFile.open(tmp_path, "api").close()  # what is not locked yet may be had by children

    def write(name):
        for number in count():
            begin_journal(tmp_path / f"{name}-{number}").close()
            with LimitFile.open(tmp_path, "api"):
                if stop.is_set():
                    return

    with ThreadPoolExecutor(2) as threads:
        writing = [threads.submit(write, name) for name in "ab"]
        try:
            found = [held_by_child(tmp_path) for _ in range(100)]
        finally:
            stop.set()
        for each in writing:
            each.result()
    assert not any(found)


def held_by_child(folder):
    """How many files under the folder a child has open that is forked now."""
    child = os.fork()
    if child == 0:
        code = 101
        try:
            code = min(count_open_under(folder), 100)
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
