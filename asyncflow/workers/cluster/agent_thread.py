"""An agent in a thread with an event loop of its own, for an engine's process to hold.

The engine may block its own event loop, or run other code on it. The agent must not wait for that,
because it would seem to be gone.

Nothing but the agent runs on that loop. So if a callback there raises, the agent is at fault: what
the callback was about to do for its driver or a worker is not done, and nobody would do it later.
The agent then ends, its driver hears why, and its tasks are lost with it instead of waiting for
ever.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from threading import Thread
from typing import TYPE_CHECKING, Any

from asyncflow.errors import AgentGoneError
from asyncflow.workers.cluster.agent import FENCE_SECONDS, Agent

if TYPE_CHECKING:
    from collections.abc import Callable


class AgentThread:
    """An agent that runs from now on. Its methods are for any thread, and any event loop."""

    def __init__(self, *, fence_seconds: float = FENCE_SECONDS) -> None:
        """Start the thread and the agent.

        Raises:
            OSError: It cannot have a folder for its files.
        """
        self._ready: Future[tuple[asyncio.AbstractEventLoop, Agent]] = Future()
        self.ended: Future[None] = Future()
        """Done when the agent and all of its workers have ended; has the error if it failed."""
        self._thread = Thread(
            target=self._run, args=(fence_seconds,), name="asyncflow-agent", daemon=True
        )
        self._thread.start()
        self._loop, self._agent = self._ready.result()

    def _run(self, fence_seconds: float) -> None:
        try:
            asyncio.run(self._serve(fence_seconds))
        except BaseException as error:  # noqa: BLE001 - handed to whoever waits for the end
            if not self._ready.done():
                self._ready.set_exception(error)
            self.ended.set_exception(error)
        else:
            self.ended.set_result(None)

    async def _serve(self, fence_seconds: float) -> None:
        loop = asyncio.get_running_loop()
        agent = Agent(fence_seconds=fence_seconds)
        loop.set_exception_handler(partial(_end_if_at_fault, agent))
        self._ready.set_result((loop, agent))
        await agent.serve()

    async def push(self, batch: bytes) -> None:
        """Have the agent take a batch of its driver in.

        Raises:
            AgentGoneError: It has ended.
        """
        self._call(self._agent.take_in, batch)

    async def poll(self, received: int) -> bytes:
        """The agent's next batch for its driver; empty if there is none within a second.

        Raises:
            AgentGoneError: It has ended.
        """
        polling = self._agent.poll(received)
        try:
            answer = asyncio.run_coroutine_threadsafe(polling, self._loop)
        except RuntimeError:  # its loop is closed
            polling.close()
            raise self._is_gone() from None
        try:
            return await asyncio.wrap_future(answer)
        except asyncio.CancelledError:
            if self.ended.done():  # with its loop
                raise self._is_gone() from None
            raise

    def end(self, why: str) -> None:
        """Kill the workers, and end. Harmless when repeated."""
        with suppress(AgentGoneError):
            self._call(self._agent.end, why)

    def _call(self, function: Callable[..., object], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:
            raise self._is_gone() from None

    @staticmethod
    def _is_gone() -> AgentGoneError:
        return AgentGoneError("the agent has ended")

    def __repr__(self) -> str:
        return f"<AgentThread {'ended' if self.ended.done() else 'running'}>"


def _end_if_at_fault(
    agent: Agent, loop: asyncio.AbstractEventLoop, context: dict[str, Any]
) -> None:
    """Log what the loop complains of; end the agent if one of its callbacks has failed."""
    loop.default_exception_handler(context)
    error = context.get("exception")
    if error is not None and "handle" in context:
        agent.end(f"its agent has failed: {type(error).__name__}: {error}")
