"""A signal handler of the application raises in the middle of a callback of the engine."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap

import pytest

from asyncflow import Engine, FlowSpec, current, limit, resources, retry, step
from asyncflow.errors import AsyncflowError
from asyncflow.store.limit_files import LimitFile
from asyncflow.values import Status
from tests.support.flows import Wide
from tests.support.raising_handler import RaisingHandler, SignalError

SECONDS = 60  # that nothing here needs
PLACES = 10  # in one test


class Mixed(FlowSpec):
    """Steps of many kinds: those that yield items, retry, await, print, and wait for limits."""

    @step
    def start(self):
        self.next(self.yields, self.awaits, self.limited)

    @step
    def yields(self):
        self.items = (each for each in range(4))
        self.next(self.tries, foreach="items")

    @retry(times=1, minutes_between_retries=0)
    @step
    def tries(self):
        if current.retry_count == 0 and self.input % 2:
            raise ValueError(self.input)
        print("tried", self.input)
        self.next(self.join_tries)

    @step
    def join_tries(self, inputs):
        self.next(self.join)

    @step
    async def awaits(self):
        self.numbers = range(4)
        self.next(self.sleeps, foreach="numbers")

    @step
    async def sleeps(self):
        await asyncio.sleep(0)
        self.next(self.join_sleeps)

    @step
    def join_sleeps(self, inputs):
        self.next(self.join)

    @step
    def limited(self):
        self.numbers = range(3)
        self.next(self.waits, foreach="numbers")

    @limit("one", 1)
    @resources(cpu=1)
    @step
    def waits(self):
        self.next(self.join_waits)

    @step
    def join_waits(self, inputs):
        self.next(self.join)

    @step
    def join(self, inputs):
        self.next(self.end)

    @step
    def end(self):
        pass


async def ended(awaitable):
    """Its result, or its error; fails if it hangs."""
    return await asyncio.wait_for(asyncio.gather(awaitable, return_exceptions=True), SECONDS)


def held_by(engine):
    """What tasks hold of limits and of the machine: nothing while none runs."""
    limits = engine._limits._limits.values()
    taken = [each.file.name for each in limits if each._places]
    for each in limits:
        with LimitFile.open(each.file.path.parent, each.file.name) as other:
            taken += [each.file.name for place in range(3) if not other.take_place(place)]
    resources = engine._dispatcher._assigner._resources
    return taken, 0 if resources is None else resources.holders


# An exception may hit a coroutine before its first line: it was never awaited, says Python.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
@pytest.mark.parametrize("first", range(10))
@pytest.mark.parametrize(
    ("flow", "places", "in_asyncio"),
    [(Wide, 6000, False), (Mixed, 18000, False), (Mixed, 1000, True)],
)
async def test_a_run_ends_wherever_a_handler_raises_and_the_engine_goes_on(
    tmp_path, flow, places, in_asyncio, first
):
    """It succeeds, or its error says what has happened; then it can be resumed, and others run."""
    asyncio.get_running_loop().set_exception_handler(lambda _loop, _what: None)
    async with Engine(store=tmp_path, workers=2) as engine:
        await engine.run(flow)
        raised = 0
        for number in range(PLACES):
            at = 1 + (first + 10 * number) * places // (10 * PLACES)
            handler = RaisingHandler(at, in_asyncio=in_asyncio)
            with handler.at_work():
                (outcome,) = await ended(engine.run(flow))
            raised += handler.has_raised
            if isinstance(outcome, BaseException):
                assert isinstance(outcome, SignalError | AsyncflowError), (at, handler.where)
                assert handler.has_raised, at
                for handle in await engine.resume_interrupted(flow):
                    (resumed,) = await ended(handle)
                    assert resumed.status is Status.SUCCEEDED, at
            (again,) = await ended(engine.run(flow))
            assert again.status is Status.SUCCEEDED, at
            assert held_by(engine) == ([], 0), (at, handler.where)
    assert raised > PLACES // 2


PROGRAM = """
    import asyncio, signal, sys

    from asyncflow import Engine, Flow
    from asyncflow.errors import AsyncflowError
    from tests.support.flows import Wide
    from tests.support.raising_handler import SignalError, is_in_callback

    raised = 0

    def handler(_number, frame):
        global raised
        if is_in_callback(frame, __file__):
            raised += 1
            raise SignalError

    async def main():
        asyncio.get_running_loop().set_exception_handler(lambda _loop, _what: None)
        ended = 0
        async with Engine(workers=2) as engine:
            signal.signal(signal.SIGALRM, handler)
            signal.setitimer(signal.ITIMER_REAL, 0.013, 0.013)
            while raised < 30:
                try:
                    await engine.run(Wide)
                except (SignalError, AsyncflowError):
                    pass
                ended += 1
            signal.setitimer(signal.ITIMER_REAL, 0)
            run = await engine.run(Wide)
        print(ended > 0, run.status)

    if __name__ == "__main__":
        asyncio.run(main())
"""


def test_runs_end_under_a_handler_that_raises_every_13_milliseconds(store, tmp_path):
    """Thirty times, wherever the engine is at work on the event loop; then a run succeeds."""
    (tmp_path / "program.py").write_text(textwrap.dedent(PROGRAM))
    done = subprocess.run(
        [sys.executable, "program.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=4 * SECONDS,
        check=False,
    )
    assert done.stdout == "True succeeded\n", done.stderr[-2000:]
