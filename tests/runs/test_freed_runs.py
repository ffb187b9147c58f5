"""A run that has ended is freed at once: the garbage collector would free many together."""

from __future__ import annotations

import gc
import weakref

import pytest

from asyncflow import Engine
from asyncflow.scheduling.run_driver import RunDriver
from tests.support.flows import Linear, Wide

RUNS = 5


@pytest.fixture
def drivers(monkeypatch):
    """Weak references to the drivers of all runs that begin, while nothing collects garbage."""
    begun: list[weakref.ref[RunDriver]] = []
    init = RunDriver.__init__

    def noting(self, *values, **named):
        begun.append(weakref.ref(self))
        init(self, *values, **named)

    monkeypatch.setattr(RunDriver, "__init__", noting)
    gc.collect()
    gc.disable()
    yield begun
    gc.enable()


async def test_a_run_is_freed_when_nobody_refers_to_its_handle(tmp_path, drivers):
    """Whether somebody watched it, waited for it, or cancelled it."""
    async with Engine(store=tmp_path, workers=1) as engine:
        handle = await engine.start(Linear)
        async for _ in handle.events():
            pass
        await handle
        cancelled = await engine.start(Wide)
        cancelled.cancel()
        await cancelled.ended()
        assert [each() is None for each in drivers] == [False, False]
        del handle, cancelled
        await engine.run(Linear)
        assert [each() is None for each in drivers[:2]] == [True, True]
    assert [each() is None for each in drivers] == [True, True, True]


async def test_runs_leave_nothing_to_the_garbage_collector(tmp_path, drivers):
    """They left 443 objects each, which took the event loop 90 ms after a hundred runs; later 7."""
    async with Engine(store=tmp_path, workers=1) as engine:
        await engine.run(Linear)
        gc.collect()
        for _ in range(RUNS):
            handle = await engine.start(Linear)
            async for _event in handle.events():
                pass
            await handle
        del handle
        assert gc.collect() < RUNS
    assert len(drivers) == RUNS + 1
