"""Messages in both directions over one stream socket, on the running event loop."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import msgpack

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

_READ_BYTES: Final = 1 << 16


class MessageStream:
    """Sends msgpack arrays without waiting, and calls back with those that come in."""

    def __init__(
        self,
        end: socket.socket,
        on_message: Callable[[list[Any]], None],
        on_lost: Callable[[], None],
        on_sent: Callable[[], None] = lambda: None,
    ) -> None:
        """Listen at once.

        Args:
            end: One end of a stream socket; it is closed with the stream.
            on_message: Called with each message of the other end.
            on_lost: Called once, when the other end is gone.
            on_sent: Called when all is sent that had to wait for the other end.
        """
        end.setblocking(False)  # noqa: FBT003 - the socket's own signature
        self._end, self._loop = end, asyncio.get_running_loop()
        self._on_message, self._on_lost, self._on_sent = on_message, on_lost, on_sent
        self._unpacker = msgpack.Unpacker(max_buffer_size=0, unicode_errors="surrogateescape")
        self._unsent = bytearray()
        self._loop.add_reader(end, self._read)

    @property
    def unsent_bytes(self) -> int:
        """How many bytes wait for the other end to read."""
        return len(self._unsent)

    def send(self, *message: Any) -> None:
        """Send an array; dropped if the other end is gone."""
        if self._end.fileno() < 0:
            return
        waits = bool(self._unsent)
        self._unsent += msgpack.packb(message, unicode_errors="surrogateescape")
        if not waits:
            self._flush()

    def _flush(self) -> None:
        try:
            sent = self._end.send(self._unsent)
        except BlockingIOError:
            sent = 0
        except OSError:  # it is gone, which reading reports
            sent = len(self._unsent)
        del self._unsent[:sent]
        if self._unsent:
            self._loop.add_writer(self._end, self._flush)
        elif self._loop.remove_writer(self._end):
            self._on_sent()

    def _read(self) -> None:
        try:
            data = self._end.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            self._on_lost()
            return
        self._unpacker.feed(data)
        for message in self._unpacker:
            self._on_message(message)

    def close(self) -> None:
        """Stop; the other end notices. Harmless when repeated."""
        if self._end.fileno() >= 0:
            self._loop.remove_reader(self._end)
            self._loop.remove_writer(self._end)
            self._end.close()
