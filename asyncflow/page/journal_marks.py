"""Finds a place in a run's journal by the number of an event, without reading all before it."""

from __future__ import annotations

import threading
from array import array
from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary

from asyncflow.errors import RecordError
from asyncflow.events.records import peek
from asyncflow.store.journal import FIRST_RECORD

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncflow.client.run_files import RunRecord

_APART_BYTES: Final = 64 << 10


class JournalMarks:
    """Some offsets of one journal, each with the number of the event there. Threads share one."""

    def __init__(self, record: RunRecord) -> None:
        """Read nothing yet."""
        self._journal = record.journal
        self._seqs = array("Q", [0])
        self._offsets = array("Q", [FIRST_RECORD])
        self._lock = threading.Lock()

    def records_after(self, seq: int) -> Iterator[tuple[int, int, int, bytes]]:
        """The records from a place at or before the event `seq` on; sets marks on the way.

        Each has its offset, its kind and the number of its first event.

        Raises:
            JournalError: The journal is damaged.
        """
        at = self._offsets[max(bisect_right(self._seqs, seq) - 1, 0)]
        return self._read(at)

    def records_from(self, offset: int) -> Iterator[tuple[int, int, int, bytes]]:
        """The same from the record at an offset on."""
        return self._read(offset)

    def go_to_end(self) -> None:
        """Set marks up to the end, as it is now. Of most records only the checksum is looked at.

        Raises:
            JournalError: The journal is damaged.
        """
        last = self._offsets[-1]
        for batch in self._journal.batches(last):
            places, at = batch.places, 0
            while (at := bisect_left(places, last + _APART_BYTES, at)) < len(places):
                last = self._mark(places[at], self._peek(places[at], batch.payloads[at])[1])
                at += 1

    def parts_backwards(self) -> Iterator[list[tuple[int, int, int, bytes]]]:
        """The journal in parts of some 64 KiB, the last one first; `go_to_end` comes before."""
        offsets = list(self._offsets)
        ends = [*offsets[1:], None]
        for start, end in zip(reversed(offsets), reversed(ends), strict=True):
            part = []
            for each in self._read(start):
                if end is not None and each[0] >= end:
                    break
                part.append(each)
            yield part

    def _read(self, offset: int) -> Iterator[tuple[int, int, int, bytes]]:
        last = self._offsets[-1]
        for at, payload in self._journal.records(offset):
            code, seq = self._peek(at, payload)
            if at >= last + _APART_BYTES:
                last = self._mark(at, seq)
            yield at, code, seq, payload

    def _peek(self, at: int, payload: bytes) -> tuple[int, int]:
        """The kind of a record and the number of its first event."""
        try:
            return peek(payload)
        except RecordError as error:
            self._journal.refuse_record(at, error)

    def _mark(self, at: int, seq: int) -> int:
        with self._lock:
            if at > self._offsets[-1] and seq > self._seqs[-1]:
                self._offsets.append(at)
                self._seqs.append(seq)
            return self._offsets[-1]


_marks: Final[WeakKeyDictionary[RunRecord, JournalMarks]] = WeakKeyDictionary()
_lock: Final = threading.Lock()


def marks_of(record: RunRecord) -> JournalMarks:
    """The marks of a run, kept as long as it is open."""
    with _lock:
        found = _marks.get(record)
        if found is None:
            found = _marks[record] = JournalMarks(record)
        return found
