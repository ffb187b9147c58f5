"""Turns what a worker has printed into reports: whole lines, in pieces, in their order.

A worker prints into two spool files. Nothing of them is kept here but up to where they were
reported. A line without an end stays in its file for a moment, and is read again with what follows.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from asyncflow.events.output_lines import whole_characters
from asyncflow.workers.messages import Logged

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncflow.workers.local.spool import Spool
    from asyncflow.workers.messages import AttemptKey

PIECE_BYTES: Final = 1 << 18  # of a task's output at a time: far below 1 ms to copy
_PARTIAL_SECONDS: Final = 0.3  # how long the end of a line is waited for
_PARTIAL_BYTES: Final = 1 << 16  # how much of a line is waited for at the most


class SpoolReader:
    """Reads a worker's two spool files."""

    __slots__ = ("_partial_since", "_read", "_spools")

    def __init__(self, spools: tuple[Spool, Spool]) -> None:
        self._spools = spools
        self._read = [0, 0]  # of each stream, up to where it was reported
        self._partial_since = [0.0, 0.0]  # when a line without an end was first seen; 0 for none

    def sizes(self) -> tuple[int, int]:
        """How many bytes lie in the two files."""
        out, err = self._spools
        return out.size(), err.size()

    def has_unread(self, upto: Sequence[int]) -> bool:
        """Whether there is output before these offsets that was not reported."""
        return upto[0] > self._read[0] or upto[1] > self._read[1]

    def next_piece(
        self, attempt: AttemptKey, upto: Sequence[int], *, is_end: bool
    ) -> Logged | None:
        """The next output of an attempt, which printed what lies before these offsets.

        None if all is reported but perhaps a line whose end may still come. With `is_end` it does
        not come any more.
        """
        for stream, end in enumerate(upto):
            start = self._read[stream]
            if end > start:
                data = self._spools[stream].read(start, min(end - start, PIECE_BYTES))
                is_last = is_end and start + len(data) == end
                size = len(data) if is_last else self._whole_lines(stream, data)
                if size:
                    self._read[stream] += size
                    self._partial_since[stream] = 0.0
                    return Logged(*attempt, stream, data[:size])
        return None

    def _whole_lines(self, stream: int, data: bytes) -> int:
        """How much of it to report now."""
        size = data.rfind(b"\n") + 1
        now = time.monotonic()
        since = self._partial_since[stream] = self._partial_since[stream] or now
        is_overdue = not size and now - since > _PARTIAL_SECONDS
        if is_overdue or len(data) - size > _PARTIAL_BYTES:
            size = whole_characters(data)
        return size

    def __repr__(self) -> str:
        return f"<SpoolReader {self._read} of {list(self.sizes())} bytes>"
