"""Waiting for conditions and for time, on any event loop."""

from __future__ import annotations

import asyncio

import pytest
import uvloop

from asyncflow._support.conditions import Condition, pause


@pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_wait_ends_when_its_time_is_over(factory):
    """Also if the loop's clock is behind its timer by a rounding error, and nothing else comes."""

    async def pauses():
        async with asyncio.timeout(60):
            for _ in range(300):
                await pause(0.001)
            return await Condition(lambda: False).wait(0.001)

    loop = factory()
    try:
        assert loop.run_until_complete(pauses()) is False
    finally:
        loop.close()
