"""Turns a worker's output into reports: whole lines, in pieces, in order.

A worker prints into two spool files. This keeps only the offsets up to which they were reported. An
unfinished line stays in its file for a moment, and is read again with what follows.
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
_PARTIAL_SECONDS: Final = 0.3  # how long to wait for the end of a line
_PARTIAL_BYTES: Final = 1 << 16  # how many bytes of a line to wait with at most


class SpoolReader:
    """Reads a worker's two spool files."""

    __slots__ = ("_partial_since", "_spools", "reported")

    def __init__(self, spools: tuple[Spool, Spool]) -> None:
        self._spools = spools
        self.reported = [0, 0]
        """Up to where each stream was reported."""
        self._partial_since = [0.0, 0.0]  # when an unfinished line was first seen; 0 for none

    def sizes(self) -> tuple[int, int]:
        """The sizes of the two files."""
        out, err = self._spools
        return out.size(), err.size()

    def has_unread(self, upto: Sequence[int]) -> bool:
        """Whether there is unreported output before these offsets."""
        return upto[0] > self.reported[0] or upto[1] > self.reported[1]

    def next_piece(
        self, attempt: AttemptKey, upto: Sequence[int], *, is_end: bool
    ) -> Logged | None:
        """The next output of an attempt, which printed everything before these offsets.

        None if everything is reported except perhaps a line whose end may still come. With
        `is_end`, it cannot come any more.
        """
        for stream, end in enumerate(upto):
            start = self.reported[stream]
            if end > start:
                data = self._spools[stream].read(start, min(end - start, PIECE_BYTES))
                is_last = is_end and start + len(data) == end
                size = len(data) if is_last else self._whole_lines(stream, data)
                if size:
                    self.reported[stream] += size
                    self._partial_since[stream] = 0.0
                    return Logged(attempt, stream, data[:size])
        return None

    def _whole_lines(self, stream: int, data: bytes) -> int:
        """How many bytes to report now."""
        size = data.rfind(b"\n") + 1
        now = time.monotonic()
        since = self._partial_since[stream] = self._partial_since[stream] or now
        is_overdue = not size and now - since > _PARTIAL_SECONDS
        if is_overdue or len(data) - size > _PARTIAL_BYTES:
            size = whole_characters(data)
        return size

    def __repr__(self) -> str:
        return f"<SpoolReader {self.reported} of {list(self.sizes())} bytes>"
