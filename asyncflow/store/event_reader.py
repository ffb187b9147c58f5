"""Reads the events that a subscriber asked for from a run's journal, in bounded pieces."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NoReturn

from asyncflow._quick_classes import NamedTuple
from asyncflow.errors import JournalError
from asyncflow.events.records import ENDINGS, LOGGED, fields_of, peek
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

if TYPE_CHECKING:
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
        self._journal: OpenJournal | None = None
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
        record with an unknown code comes from a later version, and is skipped.

        Raises:
            JournalError: The journal is damaged, cut short, or gone.
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
        journal = self._journal = self._journal or self._run.open_journal()
        news: list[Publication] = []
        end, ended, read = start, False, 0
        group: RecordedEvents | None = None  # of the records since the last output
        for at, record, after in journal.read_from(start):
            if at == stop or read >= records or at - start >= READ_BYTES:
                break
            code, seq = peek(record)
            if code == LOGGED and code in event_filter.codes:
                news.append(OutputChunk(record, seq, self._flow, self._run_id))
                group, read = None, read + 1
            elif code in event_filter.codes and seq > event_filter.since:
                if group is None:
                    group = RecordedEvents(self._flow, self._run_id, self._resolve)
                    news.append(group)
                group.values.append(fields_of(record))
                read += 1
            end, ended = after, code in ENDINGS
        else:
            if stop is not None and end < stop:
                self.refuse(f"it ends at byte {end}, but {stop} bytes were written")
        return Excerpt(news, end, ended)

    def release(self) -> None:
        """Release the file until the next read."""
        self._journal = None  # the file closes when no thread reads it any more

    def refuse(self, what: str) -> NoReturn:
        """Raise an error that says why the journal cannot be read.

        Raises:
            JournalError: Always.
        """
        raise unreadable(self._flow, self._run_id, what)

    def __repr__(self) -> str:
        return f"<NewsReader {self._flow}/{self._run_id}>"
