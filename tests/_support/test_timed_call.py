"""Calls of the event loop at a time, which can tell that time on any loop."""

from __future__ import annotations

import asyncio

import pytest
import uvloop

from asyncflow._support.timed_call import TimedCall

LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]


@pytest.mark.parametrize("factory", LOOPS)
@pytest.mark.parametrize("seconds", [-1.0, 0.0, 0.0001, 0.0004, 0.002])
def test_a_call_tells_its_time_however_near_that_is(factory, seconds):
    """Before and after the call; uvloop has no timers below half a millisecond."""

    async def calls():
        loop = asyncio.get_running_loop()
        called = asyncio.Event()
        when = loop.time() + seconds
        call = TimedCall(loop, when, called.set)
        assert call.when == when
        async with asyncio.timeout(60):
            await called.wait()
        assert call.when == when
        assert call.is_overdue(when + 1.0, 0.5)
        assert not call.is_overdue(when + 0.5, 0.5)
        call.cancel()

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(calls())


@pytest.mark.parametrize("factory", LOOPS)
@pytest.mark.parametrize("seconds", [0.0001, 0.002])
def test_a_cancelled_call_is_not_called(factory, seconds):
    """Also if the loop has taken it for one that is due at once."""

    async def calls():
        loop = asyncio.get_running_loop()
        later, called = asyncio.Event(), []
        call = TimedCall(loop, loop.time() + seconds, lambda: called.append(seconds))
        call.cancel()
        TimedCall(loop, loop.time() + 2 * seconds + 0.002, later.set)
        await later.wait()
        call.cancel()
        return called

    with asyncio.Runner(loop_factory=factory) as runner:
        assert runner.run(calls()) == []
