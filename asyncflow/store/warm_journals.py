"""Journals that stay open for further reads: a bounded number in the process.

Whoever keeps a run, such as a handle of an engine or an object of the client, keeps no file open by
that. A program may keep thousands.
"""

from __future__ import annotations

import weakref
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from asyncflow.store.interface import OpenJournal, StoredRun

MOST_OPEN: Final = 32
"""How many journals that nobody reads at the moment are open."""

_opened: Final[deque[weakref.ref[WarmJournal]]] = deque()  # those that may be open


class WarmJournal:
    """The journal of a run, opened when it is read, and perhaps again later. Threads may share it.

    Its file closes with it, with `close`, or when many others were opened since; but not while
    somebody has what `open` has returned.
    """

    __slots__ = ("__weakref__", "_journal", "_run")

    def __init__(self, run: StoredRun) -> None:
        """Touch no file."""
        self._run = run
        self._journal: OpenJournal | None = None

    def open(self) -> OpenJournal:
        """The open journal.

        Raises:
            FileNotFoundError: It is gone.
            JournalError: It is no journal, or of a later version.
            OSError: It cannot be read.
        """
        journal = self._journal  # another thread may close it at any time
        if journal is None:
            journal = self._journal = self._run.open_journal()
            _opened.append(weakref.ref(self))
            _close_oldest()
        return journal

    def close(self) -> None:
        """Close it once nobody reads it any more; it may be opened again."""
        self._journal = None

    def __repr__(self) -> str:
        how = "not open" if self._journal is None else "open"
        return f"<WarmJournal of {self._run.pathspec}, {how}>"


def _close_oldest() -> None:
    with suppress(IndexError):  # another thread does it as well
        while len(_opened) > MOST_OPEN:
            oldest = _opened.popleft()()
            if oldest is not None:
                oldest.close()
