"""Connections that ask for nothing: each is closed after a while, and earlier if there are many.

Anybody on the machine can open connections, and a process has only so many. So one that waits for a
request counts for little: it never keeps a browser with the token out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    import asyncio

    from uvicorn.protocols.http.h11_impl import RequestResponseCycle

_REQUEST_SECONDS: Final = 10.0
"""In which a request must have come whole."""
_MOST_WAITING: Final = 200

_waiting: Final[dict[PageConnection, asyncio.TimerHandle]] = {}
"""The connections of this process without a request that is being answered, the oldest first."""


class PageConnection(H11Protocol):
    """One connection of uvicorn's server."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for a request, in place of the one that has waited longest if need be."""
        super().connection_made(transport)  # type: ignore[arg-type]  # what uvicorn calls it with
        if len(_waiting) >= _MOST_WAITING:
            next(iter(_waiting)).give_up()
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Take a part of a request; once it has all of its head, it is answered."""
        super().data_received(data)
        if self._is_answering():
            self._wait_no_more()

    def on_response_complete(self) -> None:
        """Wait for the next request, unless it has come already."""
        super().on_response_complete()
        if not (self.transport.is_closing() or self._is_answering()):
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._wait_no_more()
        super().connection_lost(exc)

    def give_up(self) -> None:
        """Close it at once."""
        self._wait_no_more()
        self.transport.abort()

    def _is_answering(self) -> bool:
        request: RequestResponseCycle | None = self.cycle  # none before the first one
        return request is not None and not request.response_complete

    def _wait(self) -> None:
        self._wait_no_more()
        _waiting[self] = self.loop.call_later(_REQUEST_SECONDS, self.give_up)

    def _wait_no_more(self) -> None:
        timer: Any = _waiting.pop(self, None)
        if timer is not None:
            timer.cancel()
