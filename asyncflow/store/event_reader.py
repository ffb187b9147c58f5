"""Reads the events that a subscriber asked for from a run's journal, in bounded pieces."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NoReturn

from asyncflow._quick_classes import NamedTuple
from asyncflow.errors import JournalError
from asyncflow.events.record_columns import AT_ONCE, plain_fields
from asyncflow.events.records import ENDINGS, KNOWN, LOGGED, fields_of, peek, seq_of
from asyncflow.events.selection import (
    EventFilter,
    OutputChunk,
    Publication,
    RecordedEvents,
    Wish,
    unreadable,
)
from asyncflow.store.files import reason_of
from asyncflow.store.manifests import manifests_of
from asyncflow.store.warm_journals import WarmJournal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncflow.store.interface import OpenJournal, StoredRun


READ_RECORDS: Final = 1000  # read at once: takes a thread some milliseconds


READ_BYTES: Final = 1 << 18  # the most bytes in one read; of short lines that is 25,000 events


class Excerpt(NamedTuple):
    """The result of one read of a journal."""

    news: list[Publication]
    after: int
    """The offset at which the next read starts."""
    ended: bool
    """Whether the run's last event was among the records read."""


class EventReader:
    """Reads a run's journal, while it is written or afterwards.

    It keeps no position, so threads may share one.
    """

    def __init__(self, run: StoredRun) -> None:
        self._run, self._flow, self._run_id = run, run.flow, run.run_id
        self._journal = WarmJournal(run)
        self._resolve = manifests_of(run).resolved

    def read(
        self,
        start: int,
        event_filter: EventFilter[Wish],
        *,
        stop: int | None = None,
        records: int = READ_RECORDS,
    ) -> Excerpt:
        """The selected events from offset `start` on, a bounded number of them; blocks on the disk.

        With `stop`, it reads up to that offset; the journal is known to be written that far. A
        record with an unknown code comes from a later version, and is skipped. What lies before
        damage is read like any other part.

        Raises:
            JournalError: The journal is damaged at `start`, cut short there, or gone.
        """
        try:
            return self._read(start, event_filter, stop, records)
        except FileNotFoundError:
            self.refuse("the file is gone")
        except OSError as error:
            self.refuse(f"{self._run.journal_place}: {reason_of(error)}")
        except JournalError as error:
            self.refuse(str(error))

    def _read(
        self, start: int, event_filter: EventFilter[Wish], stop: int | None, records: int
    ) -> Excerpt:
        journal = self._journal.open()
        if stop is None and records >= READ_RECORDS and event_filter.selects_all:
            with suppress(JournalError):  # then what lies before the damage is read one by one
                return self._read_all(journal, start)
        news: list[Publication] = []
        end, ended, read = start, False, 0
        group: RecordedEvents | None = None  # of the records since the last output
        try:
            for at, record, after in journal.read_from(start):
                if at == stop or read >= records or at - start >= READ_BYTES:
                    break
                code, seq = peek(record)
                if code == LOGGED and code in event_filter.codes:
                    news.append(OutputChunk(record, seq, self._flow, self._run_id))
                    group, read = None, read + 1
                elif code in event_filter.codes and seq > event_filter.since:
                    values = fields_of(record)
                    if group is None:
                        group = self._group(news)
                    group.values.append(values)
                    read += 1
                end, ended = after, code in ENDINGS
            else:
                if stop is not None and end < stop:
                    self.refuse(f"it ends at byte {end}, but {stop} bytes were written")
        except JournalError:
            if end == start:
                raise
        return Excerpt(news, end, ended)

    def _read_all(self, journal: OpenJournal, start: int) -> Excerpt:
        """All events of the records that one read of the file brings, many checked at once."""
        batch = next(iter(journal.read_batches(start)), None)
        if batch is None:
            return Excerpt([], start, ended=False)
        news: list[Publication] = []
        ended, payloads = False, batch.payloads
        for begin in range(0, len(payloads), AT_ONCE):
            some = payloads[begin : begin + AT_ONCE]
            unpacked = plain_fields(some)
            if unpacked is None:
                ended = self._add_each(some, news)
            else:
                self._add_plain(unpacked, news)
                ended = False  # none of them ends a run
        return Excerpt(news, batch.after, ended)

    def _add_plain(self, unpacked: Sequence[list[Any]], news: list[Publication]) -> None:
        group: RecordedEvents | None = None
        for values in unpacked:
            if values[0] == LOGGED:
                news.append(OutputChunk(values, seq_of(values), self._flow, self._run_id))
                group = None
            else:
                if group is None:
                    group = self._group(news)
                group.values.append(values)

    def _add_each(self, payloads: Sequence[bytes], news: list[Publication]) -> bool:
        """Add records one by one; return whether the last one ends the run."""
        code = 0
        for payload in payloads:
            code, seq = peek(payload)
            if code == LOGGED:
                news.append(OutputChunk(payload, seq, self._flow, self._run_id))
            elif code in KNOWN:
                self._group(news).values.append(fields_of(payload))
        return code in ENDINGS

    def _group(self, news: list[Publication]) -> RecordedEvents:
        """Records of events to be published next."""
        group = RecordedEvents(self._flow, self._run_id, self._resolve)
        news.append(group)
        return group

    def release(self) -> None:
        """Release the file until the next read."""
        self._journal.close()  # once no thread reads it any more

    def refuse(self, what: str) -> NoReturn:
        """Raise an error that says why the journal cannot be read.

        Raises:
            JournalError: Always.
        """
        raise unreadable(self._flow, self._run_id, what)

    def __repr__(self) -> str:
        return f"<NewsReader {self._flow}/{self._run_id}>"
