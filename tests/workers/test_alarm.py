"""An alarm rings at the earliest time that was asked for, on any event loop."""

from __future__ import annotations

import asyncio

import pytest
import uvloop

from asyncflow.workers.cluster.alarm import Alarm

NEAR = [0.0, 0.0001, 0.0002, 0.0003, 0.0004, 0.0006, 0.001]
"""Seconds: some of them nearer than any timer of uvloop."""


async def all_ring(ask):
    """Ask for each pair of times after another, with one alarm."""
    loop, alarm = asyncio.get_running_loop(), Alarm()
    async with asyncio.timeout(60):
        for first in NEAR:
            for second in NEAR:
                ask(alarm, loop.time(), first)
                ask(alarm, loop.time(), second)
                await alarm.wait()
                alarm.silence()


@pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop])
@pytest.mark.parametrize(
    "ask",
    [
        lambda alarm, now, seconds: alarm.ring_within(seconds),
        lambda alarm, now, seconds: alarm.ring_at(now + seconds),
    ],
    ids=["within", "at"],
)
def test_it_rings_however_near_the_times_are(factory, ask):
    """The time of the first one is compared with the second, whatever the loop makes of it."""
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(all_ring(ask))
