"""Writes to a descriptor without blocking the event loop, and goes on when the reader is gone.

Bytes that the descriptor can take at once are written at once. If a pipe is full or a terminal is
stopped, a thread waits, with one write at a time, so lines stay whole and in order. When the reader
is gone (`| head`), later output is dropped: a run is worth more than its log.
"""

from __future__ import annotations

import asyncio
import os
import select
import stat
from pathlib import Path
from typing import Final

from asyncflow._support.terminal_text import visible

_PIECE_BYTES: Final = min(getattr(select, "PIPE_BUF", 512), 4096)
"""POSIX promises that a pipe that is ready for writing takes this many bytes without blocking."""


class NonblockingOutput:
    """A descriptor to write lines to, such as 1 for the standard output."""

    def __init__(self, descriptor: int, *, encoding: str = "utf-8") -> None:
        self._descriptor = descriptor
        self._encoding = encoding
        self._never_waits = _is_plain_file(descriptor)
        self._leads_nowhere = _is_null_device(descriptor)
        self._is_terminal = _is_terminal(descriptor)
        self.broken = False
        """Whether the reader is gone or the disk is full; then output is dropped."""
        self.error: OSError | None = None
        """The error that broke it; None if the reader is gone, because nobody misses anything
        then."""

    @property
    def is_unread(self) -> bool:
        """Whether nobody reads it: the reader is gone, or it was told to write to `/dev/null`."""
        return self.broken or self._leads_nowhere

    async def write(self, text: str, *, drawn: str = "", erasure: str = "") -> None:
        """Write all of it. Cancelled: a part may have been written.

        On a terminal, control characters become escapes, except colours and those of `erasure` and
        `drawn`, which are written before and after the text.
        """
        data = self._encoded(text, drawn, erasure)
        while data and not self.broken:
            if self._never_waits:
                data = data[self._write(data) :]
            elif _takes_more(self._descriptor):
                data = data[self._write(data[:_PIECE_BYTES]) :]
            else:
                written = await asyncio.to_thread(self._write, data)
                data = data[written:]

    def write_nowait(self, text: str) -> None:
        """Write all of it before returning, even if that blocks: for a few last words."""
        data = self._encoded(text)
        while data and not self.broken:
            data = data[self._write(data) :]

    def _encoded(self, text: str, drawn: str = "", erasure: str = "") -> memoryview:
        shown = visible(text, colours=True) if self._is_terminal else text
        whole = f"{erasure}{shown}{drawn}"
        return memoryview(whole.encode(self._encoding, "backslashreplace"))

    def _write(self, data: memoryview) -> int:
        try:
            return os.write(self._descriptor, data)
        except BlockingIOError:  # another process made it non-blocking: wait as if it were not
            select.select([], [self._descriptor], [])
            return 0
        except OSError as error:
            self.broken = True
            self.error = None if isinstance(error, BrokenPipeError) else error
            return 0


def _is_terminal(descriptor: int) -> bool:
    try:
        return os.isatty(descriptor)
    except OSError:
        return False


def _is_plain_file(descriptor: int) -> bool:
    try:
        return stat.S_ISREG(os.fstat(descriptor).st_mode)
    except OSError:
        return False


def _is_null_device(descriptor: int) -> bool:
    try:
        told = os.fstat(descriptor)
        return stat.S_ISCHR(told.st_mode) and told.st_rdev == Path(os.devnull).stat().st_rdev
    except OSError:
        return False


def _takes_more(descriptor: int) -> bool:
    try:
        return bool(select.select([], [descriptor], [], 0)[1])
    except (OSError, ValueError):  # closed, or beyond what select can take
        return True
