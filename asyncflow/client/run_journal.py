"""The journal of one run: its events by offset, and facts that need all of it.

Every error names the run and the place of the damage.
"""

from __future__ import annotations

import threading
from collections import Counter
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, NoReturn

from asyncflow.errors import GraphError, JournalError, RecordError
from asyncflow.events.manifests import unpack_manifest
from asyncflow.events.output_records import LoggedOutput, output_of
from asyncflow.events.packing import events_of, unpack_events
from asyncflow.events.record_columns import AT_ONCE, plain_fields
from asyncflow.events.records import (
    CARDS,
    FAILED,
    KNOWN,
    LOGGED,
    OF_ATTEMPTS,
    YIELDED,
    code_of,
    fields_of,
    task_of,
)
from asyncflow.events.types import (
    CardUpdated,
    RunCancelled,
    RunFailed,
    RunStarted,
    RunSucceeded,
    TaskCloned,
    TaskFailed,
    TaskStarted,
    TaskSucceeded,
    TaskYielded,
)
from asyncflow.store.files import reason_of
from asyncflow.store.journal import FIRST_RECORD
from asyncflow.store.manifests import JournalManifests
from asyncflow.store.run_index import Summary, other_owner
from asyncflow.store.warm_journals import WarmJournal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncflow.events.types import Event
    from asyncflow.flow.graph import Graph
    from asyncflow.store.frames import RecordBatch
    from asyncflow.store.interface import OpenJournal, StoredRun
    from asyncflow.values import Manifest

EndOfTask = TaskSucceeded | TaskFailed | TaskCloned
"""An event that ends an attempt; a task's entry in the table points to the last one."""

EndOfRun = RunSucceeded | RunFailed | RunCancelled
"""A run's last event."""


def unreadable(pathspec: str, what: str) -> JournalError:
    """The error for a run whose journal cannot be read, and what to do about it."""
    return JournalError(
        f"the journal of {pathspec} cannot be read: {what}. "
        f"What else is affected: asyncflow verify {pathspec}"
    )


class WrittenSummary:
    """The summary that the engine writes when a run has ended. Threads may share one."""

    def __init__(self, run: StoredRun) -> None:
        """Touch no file."""
        self._run = run
        self._lock = threading.Lock()
        self._found: Summary | None = None
        self._is_replaced = False

    def read(self) -> Summary | None:
        """The summary; None if there is none yet, or if `replace` was called.

        Raises:
            JournalError: It belongs to another run.
        """
        with self._lock:
            if self._found is None and not self._is_replaced:
                self._found = self._read()
            return self._found

    def replace(self) -> None:
        """Return None from now on, because the journal is replayed instead.

        A newer summary would make the part of the journal that was read look cut off.
        """
        with self._lock:
            self._found, self._is_replaced = None, True

    def _read(self) -> Summary | None:
        try:
            summary = Summary.read(self._run)
        except (JournalError, OSError):
            return None  # the journal has the same information
        if summary and other_owner(summary, self._run):
            what = f"its summary is that of {summary.flow}/{summary.run_id}"
            raise unreadable(self._run.pathspec, what)
        return summary


class RunJournal:
    """The events of one run.

    Threads may share one. Any method may raise `JournalError`: a file is damaged.
    """

    def __init__(self, run: StoredRun) -> None:
        """Touch no file."""
        self.run: Final = run
        self.flow, self.run_id = run.flow, run.run_id
        self.summary: Final = WrittenSummary(run)
        self._reader = WarmJournal(run)
        self._latest: tuple[int, Event] | None = None
        """The last event that was read, and its offset: many callers ask twice."""

    @cached_property
    def manifests(self) -> JournalManifests:
        """What its records pass on.

        Made when it is asked for: it refers to the journal, and only the garbage collector frees
        what refers to itself.
        """
        return JournalManifests(self._read, self.run.journal_file)

    @property
    def pathspec(self) -> str:
        """`Flow/run`."""
        return self.run.pathspec

    def has_begun(self) -> bool:
        """Whether the journal has a first record.

        Raises:
            JournalError: It is damaged.
        """
        return self.run.has_journal() and any(True for _ in self.records(FIRST_RECORD))

    # --- what its events say ---

    @cached_property
    def started(self) -> RunStarted:
        """The run's first event."""
        event = self.event(FIRST_RECORD)
        if not isinstance(event, RunStarted):
            self.refuse(f"its first event is a {type(event).__name__}")
        return event

    @cached_property
    def graph(self) -> Graph:
        """The graph that the run follows."""
        from asyncflow.flow.graph import Graph

        try:
            return Graph.from_data(self.started.graph)
        except GraphError as error:
            self.refuse(f"its graph is invalid: {error}")

    def attempts(self, task: int, until: int) -> Iterator[TaskStarted | EndOfTask]:
        """The events that began and ended a task's attempts, up to the record at `until`."""
        for at, payload in self.records(FIRST_RECORD):
            if at > until:
                return
            if self._code(at, payload) in OF_ATTEMPTS:
                values = self._values(at, payload)
                if task_of(values) == task:
                    for event in events_of(values, self.flow, self.run_id, self.manifests.resolved):
                        if isinstance(event, TaskStarted | EndOfTask):
                            yield event

    def caught(self) -> Counter[str]:
        """For each step, how many of its tasks failed for good and were caught by its `@catch`.

        The journal is read, if any step could have caught something.
        """
        counts: Counter[str] = Counter()
        if any("catch" in step.options for step in self.graph):
            for at, payload in self.records(FIRST_RECORD):
                if self._code(at, payload) == FAILED:
                    counts.update(
                        event.step
                        for event in self._unpacked(at, payload)
                        if isinstance(event, TaskFailed) and event.caught
                    )
        return counts

    def yielded(self, task: int) -> Iterator[TaskYielded]:
        """What the generator of a task has yielded for its foreach; the journal is read."""
        for at, payload in self.records(FIRST_RECORD):
            if self._code(at, payload) == YIELDED:
                for event in self._unpacked(at, payload):
                    if isinstance(event, TaskYielded) and event.task_id == str(task):
                        yield event

    def failed_at(self, at: int, of: str) -> TaskFailed:
        """The failure at this offset; `of` is the pathspec of its task."""
        event = self.event(at, of)
        if not isinstance(event, TaskFailed):
            self.refuse(f"the record at byte {at} is not a failure of {of}")
        return event

    def last_output(self, task: int, since: int) -> int:
        """The offset of a task's last output at or after the offset `since`; 0 for none."""
        last = 0
        for at, payload in self.records(since):
            if self._code(at, payload) == LOGGED and task_of(self._values(at, payload)) == task:
                last = at
        return last

    def last_cards(self, task: int, since: int) -> Manifest:
        """What a running task has last put on its cards, from the offset of its begin on."""
        cards = b""
        for at, payload in self.records(since or FIRST_RECORD):
            if self._code(at, payload) == CARDS and task_of(self._values(at, payload)) == task:
                (event,) = self._unpacked(at, payload)
                cards = event.cards if isinstance(event, CardUpdated) else cards
        return unpack_manifest(cards) if cards else {}

    def output(self, at: int, of: int) -> LoggedOutput:
        """The record of output at this offset; `of` is the task's number, for the error."""
        payload = self._read(at, f"the output of task {of}")
        try:
            return output_of(fields_of(payload))
        except RecordError as error:
            self.refuse_record(at, error)

    # --- records ---

    def event(self, at: int, of: str = "") -> Event:
        """The event at this offset; `of` is the pathspec of its task, for the error."""
        latest = self._latest  # another thread may put its own there at any time
        if latest is not None and latest[0] == at:
            return latest[1]
        events = self._unpacked(at, self._read(at, of))
        if not events:
            self.refuse(f"the record at byte {at} was written by a later version of asyncflow")
        self._latest = at, events[0]
        return events[0]

    def records(self, offset: int) -> Iterator[tuple[int, bytes]]:
        """The records from an offset on, each with its own offset."""
        after = offset
        with self._naming_the_run():
            for at, payload, after in self._journal().read_from(offset):  # noqa: B007 - the last
                yield at, payload
        self.check_whole(after)

    def batches(self, offset: int) -> Iterator[RecordBatch]:
        """The same records, many at once."""
        after = offset
        with self._naming_the_run():
            for batch in self._journal().read_batches(offset):
                yield batch
                after = batch.after
        self.check_whole(after)

    def fields(self) -> Iterator[list[Any]]:
        """The fields of all records that this version knows, in order."""
        for batch in self.batches(FIRST_RECORD):
            for begin in range(0, len(batch.payloads), AT_ONCE):
                part = slice(begin, begin + AT_ONCE)
                plain = plain_fields(batch.payloads[part])
                if plain is not None:
                    yield from plain
                    continue
                for at, payload in zip(batch.places[part], batch.payloads[part], strict=True):
                    values = self._values(at, payload)
                    if values[0] in KNOWN:
                        yield values

    def check_whole(self, end: int) -> None:
        """Refuse a journal that ends here, if it was longer when the run ended."""
        summary = self.summary.read()
        if summary is not None and end < summary.journal_bytes:
            self.refuse(
                f"it ends at byte {end}, but had {summary.journal_bytes} when the run ended"
            )

    def _unpacked(self, at: int, payload: bytes) -> list[Event]:
        try:
            return list(unpack_events(payload, self.flow, self.run_id, self.manifests.resolved))
        except RecordError as error:
            self.refuse_record(at, error)

    def _values(self, at: int, payload: bytes) -> list[Any]:
        try:
            return fields_of(payload)
        except RecordError as error:
            self.refuse_record(at, error)

    def _code(self, at: int, payload: bytes) -> int:
        try:
            return code_of(payload)
        except RecordError as error:
            self.refuse_record(at, error)

    def _read(self, at: int, of: str = "") -> bytes:
        with self._naming_the_run(of):
            return self._journal().read_one(at)

    def _journal(self) -> OpenJournal:
        try:
            return self._reader.open()
        except FileNotFoundError:
            message = "the file is gone"
            raise JournalError(message) from None

    # --- damage ---

    @contextmanager
    def _naming_the_run(self, of: str = "") -> Iterator[None]:
        try:
            yield
        except JournalError as error:
            self.refuse(f"{error}; {of} used to be there" if of else str(error))
        except OSError as error:
            self.refuse(f"{self.run.journal_place}: {reason_of(error)}")

    def refuse_record(self, at: int, error: RecordError) -> NoReturn:
        """Raise the error for a record that is no event of this run."""
        self.refuse(f"the record at byte {at} is not an event of this run: {error}")

    def refuse(self, what: str) -> NoReturn:
        """Raise the error for a journal that cannot be read because of this."""
        raise unreadable(self.pathspec, what)
