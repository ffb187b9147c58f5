"""The thread that calls Ray's blocking functions; none of Ray is needed for it."""

from __future__ import annotations

import asyncio
import threading

import pytest

from asyncflow.workers.cluster.ray import RayThread


async def until_ended():
    """Return when no such thread is left."""
    for thread in threading.enumerate():
        if thread.name == "asyncflow-ray":
            await asyncio.to_thread(thread.join)


class Blocked:
    """Keeps a thread busy until `go_on`."""

    def __init__(self, thread):
        self._thread, self._gate, self._begun = thread, threading.Event(), asyncio.Event()

    async def __aenter__(self):
        loop = asyncio.get_running_loop()

        def wait():
            loop.call_soon_threadsafe(self._begun.set)
            self._gate.wait()

        self._call = asyncio.ensure_future(self._thread.call(wait, 60))
        await self._begun.wait()
        return self

    async def __aexit__(self, *_):
        self.go_on()
        await self._call

    def go_on(self):
        self._gate.set()


async def test_a_call_for_which_nobody_waits_any_more_is_not_made():
    """The one before it took too long. Made late, it would hit another connection."""
    thread, made = RayThread(), []
    async with Blocked(thread) as blocked:
        with pytest.raises(TimeoutError):
            await thread.call(lambda: made.append("shutdown"), 0.001)
        with pytest.raises(TimeoutError):
            await thread.call(lambda: made.append("kill"), 0.001, even_late=True)
        thread.end()
        blocked.go_on()
    await until_ended()
    assert made == ["kill"]


async def test_a_call_that_is_cancelled_before_it_has_begun_is_not_made():
    """Whoever had asked for it has given up."""
    thread, made = RayThread(), []
    async with Blocked(thread):
        call = asyncio.ensure_future(thread.call(lambda: made.append("shutdown"), 60))
        await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    assert await thread.call(lambda: len(made), 60) == 0
    thread.end()
    await until_ended()


async def test_a_call_after_the_end_is_made_and_leaves_no_thread():
    """Its actor came too late to be ended with the others."""
    thread = RayThread()
    assert await thread.call(lambda: 1, 60) == 1
    thread.end()
    assert await thread.call(lambda: 2, 60, even_late=True) == 2
    await until_ended()


async def test_what_a_call_raises_is_raised():
    """Also if it is no `Exception`."""
    thread = RayThread()

    def fail():
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        await thread.call(fail, 60)
    thread.end()
    await until_ended()
