"""What the engine does again, in case a callback was lost, does not go on twice if none was."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from typing import Any

from asyncflow import Engine
from asyncflow._support.conditions import look_again
from asyncflow.errors import RunCancelledError
from asyncflow.scheduling.loop_budget import LoopBudget
from asyncflow.scheduling.task_assigner import TaskAssigner
from asyncflow.workers.local.pool import WorkerPool
from tests.support.flows import Waiting, Wide

CALLS: tuple[Any, ...] = TaskAssigner._on_woken, WorkerPool._read_some, LoopBudget._next
RUNS = 20


def waiting_calls() -> Counter[str]:
    """How often each of these calls waits for its turn of the running event loop."""
    loop: Any = asyncio.get_running_loop()
    functions = [getattr(handle._callback, "__func__", None) for handle in loop._ready]
    return Counter(each.__qualname__ for each in functions if each in CALLS)


async def test_each_call_that_goes_on_is_there_once_however_often_the_engine_looks(tmp_path):
    """Each look had begun another chain of calls, for as long as the engine was busy."""
    most: Counter[str] = Counter()
    async with Engine(store=tmp_path, workers=2) as engine:
        runs = [asyncio.ensure_future(engine.run(Wide)) for _ in range(RUNS)]
        while not all(run.done() for run in runs):
            most |= waiting_calls()
            look_again(asyncio.get_running_loop())
            most |= waiting_calls()
            await asyncio.sleep(0)
        await asyncio.gather(*runs)
    assert set(most.values()) == {1}


async def test_the_engine_goes_on_looking_after_a_look_that_has_failed(tmp_path, monkeypatch):
    """As when a signal handler raises in it: while a run goes on, nothing else would repair it."""
    loop, looks, again = asyncio.get_running_loop(), 0, asyncio.Event()
    loop.set_exception_handler(lambda _loop, _what: None)

    def look(_loop):
        nonlocal looks
        looks += 1
        if looks == 1:
            raise InterruptedError
        again.set()

    monkeypatch.setattr("asyncflow.engine.engine.look_again", look)
    async with Engine(store=tmp_path, workers=1) as engine:
        handle = await engine.start(Waiting, seconds=120)
        await asyncio.wait_for(again.wait(), 60)
        handle.cancel()
        with suppress(RunCancelledError):
            await handle
    assert looks > 1
