"""What subscribers receive: events, and chunks of output that become events on demand.

Output is journalled by the chunk, and a chunk stands for as many `TaskLogged` as it has lines.
Splitting a chunk into these is the expensive part, so it is done lazily: once, when the first
subscriber asks, and not at all if none does. So are the events that begin and end a task, which are
most of those of a wide run.

`EventFilter` is what one subscriber asks for. `store.event_reader` reads the same from a journal.
"""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, TypeVar, cast

from asyncflow.errors import JournalError, RecordError
from asyncflow.events.drafts import event_list, event_of, logged
from asyncflow.events.records import KNOWN, LOGGED, STARTED, fields_of, seq_of
from asyncflow.events.types import Event, TaskEvent, event_types

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Sequence

    from asyncflow.events.types import Resolve

Wish = TypeVar("Wish", bound=Event)
"""The type of event that a subscriber asked for."""
_TYPES: Final = {Event, TaskEvent, *event_types()}


class OutputChunk:
    """A journal record of output, in place of the events that it stands for."""

    __slots__ = ("_events", "_lock", "_record", "count", "flow", "run_id", "seq")

    code: ClassVar[int] = LOGGED

    def __init__(
        self,
        record: bytes | Sequence[Any],
        seq: int,
        flow: str,
        run_id: str,
        *,
        count: int = 0,
    ) -> None:
        """Stand for the events of a record, or of the fields of one that this engine has made."""
        self.count = count
        """How many events it stands for; 0 if they were not counted."""
        self._record, self.flow, self.run_id = record, flow, run_id
        self.seq = seq
        """The number of its first event."""
        self._events: Sequence[Event] | None = None
        self._lock = Lock()

    @property
    def pending(self) -> int:
        """How many events are still to be made; 0 once they have been made."""
        return self.count if self._events is None else 0

    def events(self) -> Sequence[Event]:
        """One `TaskLogged` for each line; made on the first call, then kept.

        Raises:
            JournalError: The record is invalid; a record from a file is not checked before.
        """
        with self._lock:  # slow work runs in threads; the lock lets only one of them do it
            if self._events is None:
                self._events = logged(self.values, self.flow, self.run_id)
            return self._events

    @property
    def values(self) -> Sequence[Any]:
        """The fields of the record.

        Raises:
            JournalError: The record is invalid.
        """
        if not isinstance(self._record, bytes):
            return self._record
        try:
            return fields_of(self._record)
        except RecordError as error:
            raise unreadable(self.flow, self.run_id, str(error)) from error

    def __repr__(self) -> str:
        return f"<Lines of {self.flow}/{self.run_id} from {self.seq} on>"


class RecordedEvents:
    """The checked fields of records that follow each other, in place of their events.

    An engine publishes those that begin attempts, or end them well: nearly all of a wide run.
    """

    __slots__ = ("_all", "_made", "flow", "resolve", "run_id", "values")

    code: ClassVar[int] = STARTED  # never that of a run's last event

    def __init__(self, flow: str, run_id: str, resolve: Resolve | None = None) -> None:
        self.flow, self.run_id = flow, run_id
        self.resolve = resolve
        """Reads what a manifest does not say by itself."""
        self.values: list[Sequence[Any]] = []
        """The fields of each record, in order."""
        self._made: dict[int, Event] = {}  # by its place
        self._all: list[Event] | None = None  # all of them, once somebody has asked for all

    @property
    def count(self) -> int:
        """How many events they are."""
        return len(self.values)

    def events(self, codes: Container[int] = KNOWN, since: int = 0) -> list[Event]:
        """Those of these kinds, after this number; each is made on the first call, then kept."""
        if self._all is None and codes is KNOWN and not self._made:
            self._all = event_list(self.values, self.flow, self.run_id, self.resolve)
        if self._all is not None:
            if codes is KNOWN and not since:
                return self._all
            return [each for each in self._all if each.code in codes and each.seq > since]
        made, flow, run_id, picked = self._made, self.flow, self.run_id, []
        for at, values in enumerate(self.values):
            if values[0] in codes and seq_of(values) > since:
                event = made.get(at)
                if event is None:
                    event = made[at] = event_of(values, flow, run_id, self.resolve)
                picked.append(event)
        return picked

    def __repr__(self) -> str:
        return f"<RecordedEvents: {len(self.values)} of {self.flow}/{self.run_id}>"


Publication = Event | OutputChunk | RecordedEvents


class EventFilter(Generic[Wish]):
    """What a subscriber asks for: events of some types, after some number of their run."""

    __slots__ = ("codes", "since", "takes_all")

    def __init__(self, types: Iterable[type[Event]] = (), since: int = 0) -> None:
        """Create it; without types, it selects all events.

        Raises:
            TypeError: One of `types` is not a type of event, or `since` is not a whole number.
            ValueError: `since` is negative or too large.
        """
        types = tuple(types)
        for each in types:
            if not any(each is known for known in _TYPES):  # it may be unhashable
                message = f"{each!r} is not a type of event; see asyncflow.events"
                raise TypeError(message)
        given: object = since
        if not isinstance(given, int) or isinstance(given, bool):
            message = f"since must be the seq of an event, or 0 for all events, not {since!r}"
            raise TypeError(message)
        if since < 0:
            message = f"since must be the seq of an event, or 0 for all events, not {since}"
            raise ValueError(message)
        codes = frozenset(cls.code for cls in event_types() if not types or issubclass(cls, types))
        self.codes = KNOWN if codes == KNOWN else codes
        self.since = since
        self.takes_all = not since and codes == KNOWN

    def pick(self, news: Iterable[Publication]) -> list[Wish]:
        """The events among these publications that the filter selects."""
        codes, since, picked = self.codes, self.since, list[Event]()
        for item in news:
            if isinstance(item, RecordedEvents):
                picked += item.events(codes, since)
                continue
            if item.code not in codes:
                continue
            if isinstance(item, OutputChunk):
                events = item.events()
                if item.seq <= since:
                    events = [event for event in events if event.seq > since]
                picked += events
            elif item.seq > since:
                picked.append(item)
        return cast("list[Wish]", picked)  # no other event class has one of these codes

    @property
    def selects_all(self) -> bool:
        """Whether the filter selects every event of a run."""
        return not self.since and self.codes is KNOWN

    @property
    def takes_lines(self) -> bool:
        """Whether the filter selects output of tasks."""
        return LOGGED in self.codes


class EveryRecord(EventFilter[Any]):
    """Selects everything as it was published: for who needs no event for most records."""

    __slots__ = ()

    def __init__(self, since: int = 0) -> None:
        """Create it, for what comes after an event of this number.

        Raises:
            TypeError: `since` is not a whole number.
            ValueError: `since` is negative or too large.
        """
        super().__init__((), since)
        self.takes_all = False  # subscribers to all events share a list of these

    def pick(self, news: Iterable[Publication]) -> list[Any]:
        """The publications themselves; events of those that began before."""
        if not self.since:
            return list(news)
        return [each for item in news for each in self._after(item)]

    def _after(self, item: Publication) -> Iterable[Publication]:
        seq = seq_of(item.values[0]) if isinstance(item, RecordedEvents) else item.seq
        if seq > self.since:
            return (item,)
        if isinstance(item, RecordedEvents):
            return item.events(KNOWN, self.since)
        events = item.events() if isinstance(item, OutputChunk) else ()
        return [event for event in events if event.seq > self.since]

    @property
    def takes_lines(self) -> bool:
        """Whether output has to be split for it: no."""
        return False


def unreadable(flow: str, run_id: str, what: str) -> JournalError:
    """The error for a run whose journal cannot be read."""
    return JournalError(f"the journal of {flow}/{run_id} cannot be read: {what}")
