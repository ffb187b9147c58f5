"""Async steps side by side on a worker's event loop: each has its own of everything."""

from __future__ import annotations

import asyncio

from asyncflow import Engine, FlowSpec, concurrency, step

_CROWD = 1500  # more than a step may have at once unless it says so
_here: list[int] = []
_all_here = asyncio.Event()


class Crowd(FlowSpec):
    """Its tasks end when all of them have begun."""

    @step
    def start(self):
        self.items = range(_CROWD)
        self.next(self.meet, foreach="items")

    @concurrency(_CROWD)
    @step
    async def meet(self):
        _here.append(self.input)
        if len(_here) == _CROWD:
            _all_here.set()
        await _all_here.wait()
        self.next(self.join)

    @step
    def join(self, inputs):
        self.count = len(inputs)
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_concurrency_may_be_more_than_the_default(store):
    """With `@concurrency(1500)` as many run at once, be it on one worker."""
    async with Engine(store=store, workers=1) as engine:
        run = await engine.run(Crowd)
    assert run.data.count == _CROWD
