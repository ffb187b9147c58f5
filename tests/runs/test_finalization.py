"""The end of a worker is that of a Python process, bounded in time."""

from __future__ import annotations

import atexit
import concurrent.futures
import gzip
import multiprocessing
import os
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from asyncflow import Engine, FlowSpec, Parameter, isolate, step
from tests.support.waiting import until

kept: list[object] = []
"""What steps leave open in their worker."""


def note(name):
    """Leave a file, in the working directory."""
    Path(name).write_text("yes")


def leave(name):
    """Leave to the end of the process what programs do leave to it."""
    atexit.register(note, f"{name} was called")
    text = Path(f"{name}.txt").open("w")  # noqa: SIM115 - that it is left open is what is tested
    text.write("text")
    packed = gzip.open(f"{name}.gz", "wt")  # noqa: SIM115 - that it is left open is what is tested
    packed.write("packed text")
    kept.extend((text, packed, tempfile.TemporaryDirectory(prefix=f"{name}-", dir=".")))


class Leaving(FlowSpec):
    """Leaves things to the end of its worker, also of one that is its own."""

    @isolate
    @step
    def start(self):
        leave("own")
        self.next(self.end)

    @step
    def end(self):
        leave("shared")


async def test_what_a_step_leaves_to_the_end_of_its_process_is_done_at_the_workers_end(
    store, tmp_path, monkeypatch
):
    """Functions are called, open files written to their end, temporary folders removed."""
    monkeypatch.chdir(tmp_path)
    async with Engine(store=store, workers=1) as engine:
        await engine.run(Leaving)
        await until(lambda: not list(tmp_path.glob("own-*")))
        assert len(list(tmp_path.glob("shared-*"))) == 1
    for name in ("own", "shared"):
        assert Path(f"{name} was called").exists()
        assert Path(f"{name}.txt").read_text() == "text"
        assert gzip.decompress(Path(f"{name}.gz").read_bytes()) == b"packed text"
    assert list(tmp_path.glob("shared-*")) == []


SCRIPT = """
    import atexit, multiprocessing, os, signal, sys, tempfile, time
    from pathlib import Path
    from asyncflow import FlowSpec, isolate, step

    program = os.getpid()
    folder = tempfile.TemporaryDirectory(dir=".")
    log = open("log", "w")
    log.write("program, ")

    @atexit.register
    def at_end():
        with open("ends", "a") as file:
            file.write(f"{os.getpid() == program} ")

    class Forked(FlowSpec):
        @isolate
        @step
        def start(self):
            log.write("start, ")
            self.next(self.middle)

        @isolate
        @step
        def middle(self):
            log.write("middle, ")
            self.next(self.end)

        @step
        def end(self):
            assert Path(folder.name).is_dir()

    if __name__ == "__main__":
        fork = multiprocessing.get_context("fork")
        child = fork.Process(target=time.sleep, args=(30,), daemon=True)
        child.start()
        try:
            Forked()
        finally:
            assert child.is_alive()
            assert Path(folder.name).is_dir()
"""


def test_what_the_program_has_open_is_the_programs_to_finalize(tmp_path):
    """Workers that were forked out of it end while it goes on: nothing is done twice."""
    (tmp_path / "forked.py").write_text(textwrap.dedent(SCRIPT))
    done = subprocess.run(
        [sys.executable, "forked.py", "run", "--workers", "1"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "ends").read_text() == "True "
    assert (tmp_path / "log").read_text() == "program, start, middle, "
    assert [each.name for each in tmp_path.iterdir() if each.name.startswith("tmp")] == []


def finish(seconds):
    """Take some time, and leave a file."""
    time.sleep(seconds)
    note("finished")


def fail():
    """What a function at the end may do."""
    message = "too late for this"
    raise ValueError(message)


def start_pool():
    """Leave open what has a thread and processes of its own."""
    pool = concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
    kept.append((pool, pool.submit(abs, -1).result()))


LEFT = {
    "a thread that ends soon": lambda: threading.Thread(target=finish, args=(0.3,)).start(),
    "a thread that does not end": lambda: threading.Thread(
        target=finish, args=(60,), name="endless"
    ).start(),
    "a function that fails": lambda: (atexit.register(note, "finished"), atexit.register(fail)),
    "a function that does not end": lambda: atexit.register(time.sleep, 60),
    "an idle executor": lambda: (start_pool(), atexit.register(note, "finished")),
}
WARNED = {
    "a thread that does not end": "still running when its worker ended (pid: N, thread: endless",
    "a function that fails": "has failed in part (pid: N, error: ValueError: too late for this)",
    "a function that does not end": "taken too long, and is given up (pid: N, seconds: 5.0, line",
}


class Lasting(FlowSpec):
    """Leaves one of these to its worker's end."""

    way = Parameter("way", default="")

    @step
    def start(self):
        LEFT[self.way]()
        self.next(self.end)

    @step
    def end(self):
        self.pid = os.getpid()


@pytest.mark.parametrize("way", LEFT)
async def test_the_end_of_a_worker_waits_for_a_while(store, tmp_path, monkeypatch, caplog, way):
    """For what ends; what does not, or fails, is told of, and holds nobody up."""
    monkeypatch.chdir(tmp_path)
    async with Engine(store=store, workers=1) as engine:
        pid = (await engine.run(Lasting, way=way)).data.pid
    told = [text.replace(f"pid: {pid}", "pid: N") for text in caplog.messages]
    told = [text for text in told if "worker" in text]
    assert len(told) == (way in WARNED)
    assert WARNED.get(way, "") in "".join(told)
    assert Path("finished").exists() == ("does not end" not in way)


class Counting(FlowSpec):
    """Leaves semaphores open that have a name in the file system."""

    @step
    def start(self):
        semaphore: Any = multiprocessing.get_context("spawn").Semaphore(3)
        kept.append(semaphore)
        self.semaphore = semaphore._semlock.name
        import joblib  # type: ignore[import-untyped] # it has no annotations

        self.doubled = joblib.Parallel(n_jobs=2)(joblib.delayed(abs)(-n) for n in range(4))
        self.pid = os.getpid()
        self.next(self.end)

    @step
    def end(self):
        pass


@pytest.mark.skipif(not Path("/dev/shm").exists(), reason="named semaphores are files on Linux")  # noqa: S108 - where the C library has them
async def test_no_semaphore_stays_when_a_worker_has_ended(store, caplog):
    """Those of multiprocessing and of joblib, whose idle executor is nothing to be warned of."""
    shared_memory = Path("/dev/shm")  # noqa: S108 - where the C library has them
    async with Engine(store=store, workers=1) as engine:
        data = (await engine.run(Counting)).data
        made = [
            each
            for each in shared_memory.iterdir()
            if f"_{data.pid}_" in f"{each}".replace("-", "_")
        ]
        made.append(shared_memory / f"sem.{data.semaphore[1:]}")
        assert [each for each in made if each.exists()] == made
    assert data.doubled == [0, 1, 2, 3]
    assert len(made) > 2
    assert [each for each in made if each.exists()] == []
    assert [text for text in caplog.messages if "thread" in text] == []
