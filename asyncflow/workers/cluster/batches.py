"""Batches of messages between executor and agent, numbered and acknowledged. No I/O.

An RPC that was not answered may have been carried out. So each batch has a number. The sender keeps
a batch until it is acknowledged, and sends the same bytes again; the receiver drops what it has
received already. So each message arrives once and in order, whatever is lost or repeated.

    batch    u64      its number, from 1 on, little-endian
             messages: msgpack arrays, which delimit themselves
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final

import msgpack

from asyncflow.errors import ClusterError

BATCH_BYTES: Final = 1 << 20
"""A batch gets no further message once it is so long."""
DATA_BYTES: Final = 1 << 14
"""The data of a message grows no further once it is so long: some hundred reports of short tasks,
with which the event loop is busy for half a millisecond."""
_NUMBER_BYTES: Final = 8
_pack: Final = msgpack.Packer(unicode_errors="surrogateescape").pack


def pack_message(*message: Any) -> bytes:
    """A message as it stands in a batch."""
    packed: bytes = _pack(message)
    return packed


class Outbox:
    """Messages on their way to the other side."""

    def __init__(self) -> None:
        self._waiting: deque[bytes] = deque()
        self._growing: dict[int, list[bytes]] = {}  # data of messages, by token
        self._batch = b""  # until it is acknowledged
        self._number = 0  # of the latest batch
        self.bytes = 0
        """How many bytes have not been acknowledged."""

    def put(self, packed: bytes) -> None:
        """Add a packed message."""
        for token in [*self._growing]:
            self._end_growing(token)
        self._waiting.append(packed)
        self.bytes += len(packed)

    def put_reports(self, token: int, data: bytes) -> None:
        """Add `["reports", token, data]`, in one message with the reports before, if it may be.

        Each message costs the other side more than what is in it. So the reports of one worker that
        go into the same batch share a message, unless another message has come between, or it gets
        long. Reports of other workers may overtake them.
        """
        growing = self._growing.setdefault(token, [])
        growing.append(data)
        self.bytes += len(data)
        if sum(map(len, growing)) >= DATA_BYTES:
            self._end_growing(token)

    def _end_growing(self, token: int) -> None:
        data = b"".join(self._growing.pop(token))
        self._waiting.append(pack_message("reports", token, data))
        self.bytes += len(self._waiting[-1]) - len(data)

    def batch(self) -> bytes:
        """The oldest batch that was not acknowledged; empty if there is none."""
        if not self._batch and self.has_more:
            for token in [*self._growing]:
                self._end_growing(token)
            self._number += 1
            pieces, size = [self._number.to_bytes(_NUMBER_BYTES, "little")], 0
            while self._waiting and size < BATCH_BYTES:
                pieces.append(self._waiting.popleft())
                size += len(pieces[-1])
            self._batch = b"".join(pieces)
        return self._batch

    def acknowledge(self, number: int) -> None:
        """The other side has received all batches up to this number."""
        if self._batch and number >= self._number:
            self.bytes -= len(self._batch) - _NUMBER_BYTES
            self._batch = b""

    @property
    def has_sent(self) -> bool:
        """Whether a batch that was made has not been acknowledged."""
        return bool(self._batch)

    @property
    def has_more(self) -> bool:
        """Whether there is more than the batch that was made."""
        return bool(self._waiting or self._growing)

    @property
    def sent(self) -> int:
        """The number of the latest batch that was made."""
        return self._number

    def __bool__(self) -> bool:
        """Whether anything has not been acknowledged."""
        return bool(self._batch or self.has_more)

    def __repr__(self) -> str:
        return f"<Outbox {self._number} batches, {self.bytes} bytes>"


class Inbox:
    """Batches that come from the other side."""

    def __init__(self) -> None:
        self.received = 0
        """The number of the last batch that has arrived."""

    def open(self, batch: bytes) -> list[list[Any]]:
        """The messages of a batch; none if it is empty, or has arrived before.

        Raises:
            ClusterError: The batch before it is missing, or it is no batch.
        """
        if not batch:
            return []
        number = int.from_bytes(batch[:_NUMBER_BYTES], "little")
        if number <= self.received:
            return []
        if number != self.received + 1:
            message = f"batch {number} has come after batch {self.received}"
            raise ClusterError(message)
        unpacker = msgpack.Unpacker(max_buffer_size=0, unicode_errors="surrogateescape")
        unpacker.feed(batch[_NUMBER_BYTES:])
        try:
            messages = list(unpacker)
        except (ValueError, msgpack.UnpackException) as error:
            message = f"batch {number} cannot be read: {error}"
            raise ClusterError(message) from error
        if unpacker.tell() != len(batch) - _NUMBER_BYTES:
            message = f"batch {number} is cut short"
            raise ClusterError(message)
        self.received = number
        return messages

    def __repr__(self) -> str:
        return f"<Inbox {self.received} batches>"
