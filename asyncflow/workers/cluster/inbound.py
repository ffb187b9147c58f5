"""What agents have said, on its way from the executor's thread to the engine's event loop."""

from __future__ import annotations

import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from asyncflow.workers.cluster.agent_connection import AgentConnection

_READ_SECONDS: Final = 0.0005  # of the event loop at a time


class InboundMessages:
    """Messages of agents in the order in which they came."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        handle: Callable[[AgentConnection, list[Any]], object],
    ) -> None:
        """Call `handle` on this loop with each message."""
        self._loop, self._handle = loop, handle
        self._waiting: deque[tuple[AgentConnection, list[Any]]] = deque()
        self._is_woken = False

    def __repr__(self) -> str:
        return f"<InboundMessages {len(self._waiting)} waiting>"

    def put(self, connection: AgentConnection, message: list[Any]) -> int:
        """Keep a message for the engine's loop; return how many wait there. In any thread."""
        if message:
            self._waiting.append((connection, message))
            if not self._is_woken:
                self._is_woken = True
                self.call_soon(self._take_in)
        return len(self._waiting)

    def call_soon(self, function: Callable[..., object], *arguments: Any) -> None:
        """Call a function on the engine's loop. In any thread."""
        with suppress(RuntimeError):  # the program has closed its loop
            self._loop.call_soon_threadsafe(function, *arguments)

    def take_in_again(self) -> None:
        """Handle what has come, in case the callback that should do it was lost."""
        if self._waiting:
            self._take_in()

    def _take_in(self) -> None:
        """Handle messages for a moment, then let the application have a turn of the loop."""
        self._is_woken = False
        until = time.monotonic() + _READ_SECONDS
        while self._waiting:
            connection, message = self._waiting.popleft()
            self._handle(connection, message)
            if time.monotonic() > until and self._waiting:
                self._is_woken = True
                self._loop.call_soon(self._take_in)
                return
