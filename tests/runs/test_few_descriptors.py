"""Runs that were let in are carried through, however few files a process may have open."""

from __future__ import annotations

import resource
import subprocess
import sys
import textwrap
from functools import partial

import pytest

from asyncflow.engine.admission import Admission, runs_that_fit

PROGRAM = """
    import asyncio, os, resource, sys
    from asyncflow import Engine, FlowSpec, Parameter, events, step

    class Fans(FlowSpec):
        seconds = Parameter("seconds", default=0.0)
        width = Parameter("width", default=4)

        @step
        def start(self):
            self.items = range(self.width)
            self.next(self.each, foreach="items")

        @step
        def each(self):
            import time

            time.sleep(self.seconds)
            self.next(self.join)

        @step
        def join(self, inputs):
            self.pids = {os.getpid()}
            self.next(self.end)

        @step
        def end(self):
            pass

    def let_few_files_be_opened():
        used = {int(name) for name in os.listdir("/dev/fd")}
        free = (number for number in range(4096) if number not in used)
        # Enough to make a run, and not enough for a worker.
        *_, last = (next(free) for _ in range(5))
        most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (last + 1, most[1]))
        return most

    async def many(engine):
        runs = asyncio.gather(*(engine.run(Fans) for _ in range(100)))
        await asyncio.sleep(0.5)
        print("waiting", engine.statistics().runs_waiting > 0)
        print("succeeded", sum(run.successful for run in await runs))

    async def watched(engine):
        engine = engine.options()
        handles = [await engine.start(Fans) for _ in range(20)]
        for handle in handles:
            await handle
        late = [handle.events(events.RunSucceeded) for handle in handles]
        before = len(os.listdir("/dev/fd"))
        told = [[event async for event in each] for each in late]
        print("told", sum(map(len, told)), "opened", len(os.listdir("/dev/fd")) - before)

    async def short(engine):
        if sys.argv[2:] == ["beside"]:
            await engine.run(Fans, width=1)
        most = let_few_files_be_opened()
        handle = await engine.start(Fans, seconds=0.2)
        await asyncio.sleep(1)
        resource.setrlimit(resource.RLIMIT_NOFILE, most)
        print("succeeded", (await handle).successful)

    async def main():
        async with Engine(workers=8) as engine:
            await globals()[sys.argv[1]](engine)

    if __name__ == "__main__":
        asyncio.run(main())
"""


@pytest.fixture
def program(store, tmp_path):
    """Runs a part of the program above, with so many files at the most; what it has printed."""
    (tmp_path / "program.py").write_text(textwrap.dedent(PROGRAM))

    def run(*part, files):
        few = partial(resource.setrlimit, resource.RLIMIT_NOFILE, (files, files))
        command = [sys.executable, "program.py", *part]
        options = {"cwd": tmp_path, "capture_output": True, "text": True, "timeout": 120}
        done = subprocess.run(command, preexec_fn=few, check=False, **options)
        assert done.returncode == 0, done.stderr
        return done

    return run


def test_more_runs_than_there_are_descriptors_for_wait_and_all_succeed(program):
    """None is refused, and none that was let in fails."""
    assert program("many", files=128).stdout.splitlines() == ["waiting True", "succeeded 100"]


@pytest.mark.parametrize("where", ["alone", "beside"])
def test_a_worker_that_cannot_be_started_for_want_of_descriptors_is_started_later(program, where):
    """With no worker at all the run waits for it; beside another one the run goes on."""
    done = program("short", where, files=256)
    assert done.stdout == "succeeded True\n"
    assert "a worker cannot be started; trying again soon" in done.stderr


def test_subscriptions_that_read_on_from_journals_hold_none_of_them_open(program):
    """However many runs they are behind in."""
    said = program("watched", files=256).stdout.split()
    assert said[:3] == ["told", "20", "opened"]
    assert int(said[3]) < 10


def test_how_many_runs_fit_follows_from_the_limit():
    """A quarter of the descriptors is left to the program; at least one run fits."""
    program = (
        "import resource, sys; from asyncflow.engine.admission import runs_that_fit\n"
        "for most in map(int, sys.argv[1:]):\n"
        "    resource.setrlimit(resource.RLIMIT_NOFILE, (most, 4096)); print(runs_that_fit())"
    )
    few = partial(resource.setrlimit, resource.RLIMIT_NOFILE, (4096, 4096))
    command = [sys.executable, "-c", program, "1024", "256", "20"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, preexec_fn=few)
    large, small, least = map(int, done.stdout.split())
    assert 370 <= large <= 384
    assert 80 <= small <= 96
    assert least == 1
    assert runs_that_fit() != 1


async def test_a_bound_of_descriptors_only_narrows_what_was_set():
    """Whichever of the two is smaller; zero is none."""
    for most, fit, bound in [(0, 0, 0), (0, 5, 5), (3, 5, 3), (5, 3, 3), (5, 0, 5)]:
        admission = Admission(most)
        admission.narrow(fit)
        for _ in range(bound or 10):
            await admission.enter()
        assert (admission.inside, admission.waiting) == (bound or 10, 0)
        assert admission._most == bound
