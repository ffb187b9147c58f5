"""What is told of a run: events, and output that nobody has taken apart into events yet.

Output is journalled by the chunk, and a chunk stands for as many `TaskLogged` as it has lines. To
make those costs more than all else about them, so it is done when a subscriber first wants them,
once for all subscribers, and never for who does not want them.

`Wanted` is what one subscriber asks for. `NewsReader` reads the same from a run's journal.
"""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING, ClassVar, Final, Generic, NamedTuple, NoReturn, TypeVar, cast

from asyncflow.errors import JournalError, RecordError
from asyncflow.events import Event, TaskEvent, event_types
from asyncflow.records import ENDINGS, LOGGED, peek, unpack_events
from asyncflow.store.files import reason_of
from asyncflow.store.journal import JournalReader

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

Wish = TypeVar("Wish", bound=Event)
"""The type of event that somebody asked for."""

READ_RECORDS: Final = 1000  # at once from a journal: some milliseconds of a thread
READ_BYTES: Final = 1 << 18  # the same for large ones: of short lines that is 25,000 events
_TYPES: Final = {Event, TaskEvent, *event_types()}


class Lines:
    """A journal's record of output, in the place of the events that it stands for."""

    __slots__ = ("_events", "_flow", "_lock", "_record", "_run_id", "count", "seq")

    code: ClassVar[int] = LOGGED

    def __init__(self, record: bytes, seq: int, flow: str, run_id: str, *, count: int = 0) -> None:
        self.count = count
        """How many events it stands for; 0 where nobody has counted."""
        self._record, self._flow, self._run_id = record, flow, run_id
        self.seq = seq
        """That of the first of its events."""
        self._events: Sequence[Event] | None = None
        self._lock = Lock()

    @property
    def pending(self) -> int:
        """How many events there still are to be made; 0 when that was done."""
        return self.count if self._events is None else 0

    def events(self) -> Sequence[Event]:
        """A `TaskLogged` for each line; made when first asked for, then kept.

        Raises:
            JournalError: The record is none: it came from a file, and nobody had looked at it.
        """
        with self._lock:  # what takes long is done in threads: by one of them
            if self._events is None:
                try:
                    self._events = tuple(unpack_events(self._record, self._flow, self._run_id))
                except RecordError as error:
                    raise _unreadable(self._flow, self._run_id, str(error)) from error
            return self._events

    def __repr__(self) -> str:
        return f"<Lines of {self._flow}/{self._run_id} from {self.seq} on>"


News = Event | Lines


class Wanted(Generic[Wish]):
    """What a subscriber asks for: events of some types, behind some number of their run."""

    __slots__ = ("codes", "since", "takes_all")

    def __init__(self, types: Iterable[type[Event]] = (), since: int = 0) -> None:
        """All types when none is named.

        Raises:
            TypeError: One of `types` is no type of event, or `since` is no whole number.
            ValueError: `since` is no `seq` and not 0.
        """
        types = tuple(types)
        for each in types:
            if not any(each is known for known in _TYPES):  # it may be unhashable
                message = f"{each!r} is no type of event; see asyncflow.events"
                raise TypeError(message)
        given: object = since
        if not isinstance(given, int) or isinstance(given, bool):
            message = f"since takes the seq of an event, or 0 for all of them, not {since!r}"
            raise TypeError(message)
        if since < 0:
            message = f"since takes the seq of an event, or 0 for all of them, not {since}"
            raise ValueError(message)
        self.codes = {cls.code for cls in event_types() if not types or issubclass(cls, types)}
        self.since = since
        self.takes_all = not since and len(self.codes) == len(event_types())

    def pick(self, news: Iterable[News]) -> list[Wish]:
        """What of the news is asked for, event by event."""
        codes, since, picked = self.codes, self.since, list[Event]()
        for item in news:
            if item.code not in codes:
                continue
            if isinstance(item, Lines):
                events = item.events()
                if item.seq <= since:
                    events = [event for event in events if event.seq > since]
                picked += events
            elif item.seq > since:
                picked.append(item)
        return cast("list[Wish]", picked)  # `codes` are those of its types, and nobody else's

    @property
    def takes_lines(self) -> bool:
        """Whether it wants what tasks print."""
        return LOGGED in self.codes


class Excerpt(NamedTuple):
    """What was read of a journal in one go."""

    news: list[News]
    after: int
    """The offset at which to go on."""
    ended: bool
    """Whether the run's last event was among what was read."""


class NewsReader:
    """Reads a run's journal, while it is written or afterwards.

    It keeps no position, so threads may share one.
    """

    def __init__(self, journal: Path, flow: str, run_id: str) -> None:
        self._path, self._flow, self._run_id = journal, flow, run_id
        self._journal: JournalReader | None = None

    def read(
        self,
        start: int,
        wanted: Wanted[Wish],
        *,
        stop: int | None = None,
        records: int = READ_RECORDS,
    ) -> Excerpt:
        """What is wanted from offset `start` on, a bounded piece of it; blocks on the disk.

        With `stop`, up to that offset, up to which the journal is known to have been written. A
        record whose code is not known comes from a later version, and is passed over.

        Raises:
            JournalError: The journal is damaged, cut short, or gone.
        """
        try:
            return self._read(start, wanted, stop, records)
        except FileNotFoundError:
            self.refuse("the file is gone")
        except OSError as error:
            self.refuse(f"{self._path}: {reason_of(error)}")
        except JournalError as error:
            self.refuse(str(error))

    def _read(self, start: int, wanted: Wanted[Wish], stop: int | None, records: int) -> Excerpt:
        journal = self._journal = self._journal or JournalReader(self._path)
        news: list[News] = []
        end, ended = start, False
        for at, record, after in journal.read_from(start):
            if at == stop or len(news) >= records or at - start >= READ_BYTES:
                break
            code, seq = peek(record)
            if code == LOGGED and code in wanted.codes:
                news.append(Lines(record, seq, self._flow, self._run_id))
            elif code in wanted.codes and seq > wanted.since:
                news += unpack_events(record, self._flow, self._run_id)
            end, ended = after, code in ENDINGS
        else:
            if stop is not None and end < stop:
                self.refuse(f"it ends at byte {end}, and {stop} bytes had been written")
        return Excerpt(news, end, ended)

    def release(self) -> None:
        """Hold no file, until there is something to read again."""
        self._journal = None  # it closes itself when no thread is left that reads

    def refuse(self, what: str) -> NoReturn:
        """Say that the journal cannot be read.

        Raises:
            JournalError: Always.
        """
        raise _unreadable(self._flow, self._run_id, what)

    def __repr__(self) -> str:
        return f"<NewsReader {self._flow}/{self._run_id}>"


def _unreadable(flow: str, run_id: str, what: str) -> JournalError:
    return JournalError(f"the journal of {flow}/{run_id} cannot be read: {what}")
