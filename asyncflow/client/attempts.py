"""How a task's attempts went, according to the events in its run's journal."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from asyncflow.client.run_files import RunRecord
from asyncflow.errors import AsyncflowError, NotFoundError
from asyncflow.events.manifests import unpack_manifest
from asyncflow.events.types import TaskCloned, TaskFailed, TaskStarted, TaskSucceeded
from asyncflow.store.task_table import TaskState
from asyncflow.values import Status

if TYPE_CHECKING:
    from datetime import datetime

    from asyncflow.client.run_journal import EndOfTask
    from asyncflow.store.task_table import TaskEntry
    from asyncflow.values import Failure, Manifest


def status_of(state: int, unended: Status) -> Status:
    """The status of a task; if it has not ended, `unended`, the status of its run."""
    if state in {TaskState.SUCCEEDED, TaskState.CLONED}:
        return Status.SUCCEEDED
    if state == TaskState.FAILED:
        return Status.FAILED
    if state == TaskState.STOPPED:
        return Status.CANCELLED
    return Status.RUNNING if unended is Status.RUNNING else Status.INTERRUPTED


def _end_of(event: EndOfTask) -> Status:
    if isinstance(event, TaskFailed):
        return Status.CANCELLED if event.was_stopped else Status.FAILED
    return Status.SUCCEEDED


def _goes_on(ended: EndOfTask) -> bool:
    """Whether the task goes on after this end of an attempt."""
    return isinstance(ended, TaskFailed) and (ended.will_retry or ended.caught)


class AttemptHistory(NamedTuple):
    """What is known of one attempt."""

    number: int
    status: Status
    created_at: datetime
    finished_at: datetime | None
    seconds: float | None
    exception: Failure | None
    log: int | None
    """The journal offset of its last output; None while it runs, and for a clone."""
    cpu_seconds: float | None = None
    peak_memory: int | None = None


class Attempts:
    """The attempts of one task."""

    __slots__ = ("_ended", "number", "record", "step")

    only: ClassVar[int | None] = None
    """The attempt that is looked at, if it is not the last one."""

    def __init__(self, record: RunRecord, step: str, number: int) -> None:
        self.record, self.step, self.number = record, step, number
        self._ended: EndOfTask | None = None

    @property
    def pathspec(self) -> str:
        """`Flow/run/step/task`."""
        return f"{self.record.pathspec}/{self.step}/{self.number}"

    # --- the last one ---

    def ended(self) -> EndOfTask | None:
        """The event that ended the last attempt; kept, because most callers use it repeatedly."""
        if self._ended is not None:
            return self._ended
        ended = self.record.tasks.ended_task(self.number, self.entry())
        if ended is not None and not _goes_on(ended):
            self._ended = ended
        return ended

    def last_event(self) -> TaskStarted | EndOfTask:
        """The event that ended the last attempt; if it has not ended, the event that began it."""
        event = self.ended() or self.record.tasks.started_task(self.number, self.entry())
        if event is None:
            message = f"{self.pathspec} has not begun"
            raise NotFoundError(message)
        return event

    def status(self) -> Status:
        """The status now; a task that waits for a retry is running while its run is."""
        ended = self.ended()
        if ended is None or (_goes_on(ended) and not self.record.summary().status.finished):
            return status_of(TaskState.STARTED, self.record.status())
        return _end_of(ended)

    def created_at(self) -> datetime:
        """When the last attempt began."""
        started = self.record.tasks.started_task(self.number, self.entry())
        return (started or self.last_event()).time

    def finished_at(self) -> datetime | None:
        """When the last attempt ended; None while it has not."""
        ended = self.ended()
        return ended.time if ended else None

    def item(self) -> str:
        """The short text of the task's item of the innermost foreach; empty if there is none."""
        started = self.record.tasks.started_task(self.number, self.entry())
        if started is not None:
            return started.item
        ended = self.ended()
        return ended.item if isinstance(ended, TaskFailed) else ""

    def usage(self) -> tuple[float | None, int | None]:
        """Processor time and peak memory of the last attempt, as far as they are known."""
        ended = self.ended()
        return (None, None) if ended is None or isinstance(ended, TaskCloned) else _used(ended)

    def manifest(self) -> Manifest:
        """The artifacts of the task; if it has failed for good, what it leaves.

        Parameters and constants are those of this run, even if the task was taken over from
        another.
        """
        ended = self.ended()
        if isinstance(ended, TaskCloned):
            return {**ended.artifacts, **self.record.started.artifacts}
        return ended.artifacts if ended is not None else {}

    def cards(self) -> Manifest:
        """What the step has put on its cards: refs by a card's number, or by an image's hash.

        If the last attempt still runs, the journal is read from its begin on.
        """
        ended = self.ended()
        if ended is None:
            return self.record.journal.last_cards(self.number, self.entry().started)
        return unpack_manifest(ended.cards) if ended.cards else {}

    def why_missing(self, name: str) -> str:
        """What to do about an artifact that is gone: whether a join has not passed it on."""
        from asyncflow.flow.join_inputs import lost_in_joins

        with suppress(AsyncflowError):
            tasks = self.record.tasks
            graph, begun = tasks.graph, tasks.steps()
            passed = graph.before(self.step) | {self.step}
            makers = [
                step for step in begun if step in passed - {self.step} and self._had(step, name)
            ]
            return lost_in_joins(name, graph, passed, makers) if makers else ""
        return ""

    def _had(self, step: str, name: str) -> bool:
        tasks = self.record.tasks
        first = tasks.table().first_of(tasks.step_number(step))
        outcome = tasks.outcome_of(first)
        return outcome is not None and name in outcome.artifacts

    def entry(self) -> TaskEntry:
        """The task's entry in the table of its run.

        Raises:
            NotFoundError: The task is gone, though it existed before.
        """
        entry = self.record.tasks.entry(self.number)
        if entry is None:
            message = f"{self.pathspec} no longer exists"
            raise NotFoundError(message)
        return entry

    # --- all of them ---

    def all(self) -> list[AttemptHistory]:
        """All attempts, in order. For a task that was retried, the run's journal is read."""
        by_number: dict[int, AttemptHistory] = {}
        for event in self._events():
            by_number[event.attempt] = self._told(event, by_number.get(event.attempt))
        return list(by_number.values())

    def _events(self) -> list[TaskStarted | EndOfTask]:
        """The events that began and ended its attempts."""
        entry, tasks = self.entry(), self.record.tasks
        if entry.attempt:
            return list(self.record.journal.attempts(self.number, entry.ended or entry.started))
        ended = tasks.ended_task(self.number, entry)
        told = tasks.started_task(self.number, entry), self._failure_behind(ended), ended
        return [event for event in told if event is not None]

    def _told(
        self, event: TaskStarted | EndOfTask, before: AttemptHistory | None
    ) -> AttemptHistory:
        if isinstance(event, TaskStarted):
            status = status_of(TaskState.STARTED, self.record.status())
            return AttemptHistory(event.attempt, status, event.time, None, None, None, None)
        if isinstance(event, TaskSucceeded) and before is not None and before.exception is not None:
            # this one's failure was caught
            return before._replace(finished_at=event.time, log=event.log)
        return AttemptHistory(
            event.attempt,
            _end_of(event),
            before.created_at if before else event.time,
            event.time,
            seconds_of(event),
            event.failure if isinstance(event, TaskFailed) else None,
            None if isinstance(event, TaskCloned) else event.log,
            *((None, None) if isinstance(event, TaskCloned) else _used(event)),
        )

    def failed(self) -> TaskFailed | None:
        """The failure of the last attempt, if `@catch` caught it."""
        return self._failure_behind(self.ended())

    def _failure_behind(self, ended: EndOfTask | None) -> TaskFailed | None:
        if not isinstance(ended, TaskSucceeded) or not ended.failed:
            return None
        return self.record.journal.failed_at(ended.failed, self.pathspec)

    def caught(self) -> Failure | None:
        """The final failure of the task, if `@catch` let the run go on."""
        failed = self.failed()
        if failed is not None:
            return failed.failure
        entry = self.entry()
        if not (self.record.journal.graph[self.step].catches and entry.attempt):
            return None  # an earlier version recorded the catch as an attempt of its own
        for event in self.record.journal.attempts(self.number, entry.ended or entry.started):
            if isinstance(event, TaskFailed) and event.caught:
                return event.failure
        return None

    # --- the run that a clone was taken over from ---

    def origin(self, run_id: str) -> RunRecord | None:
        """The record of that run, or what is kept of it if it was removed; None if nothing is."""
        if run_id.isdecimal() and run_id != self.record.run_id:
            for removed in (False, True):
                record = RunRecord(self.record.place, run_id, removed=removed)
                if record.exists():
                    return record
        return None


class OneAttempt(Attempts):
    """The same, as if this attempt of the task were its last."""

    __slots__ = ("_began", "_own_end", "only")

    only: int  # type: ignore[misc] # the word of the class, in place of the one of its base

    def __init__(self, record: RunRecord, step: str, number: int, attempt: int) -> None:
        """Find the attempt. For a task that was retried, the run's journal is read.

        Raises:
            NotFoundError: There is no such attempt.
        """
        super().__init__(record, step, number)
        self.only = attempt
        self._began: TaskStarted | EndOfTask | None = None
        self._own_end: EndOfTask | None = None
        self._find()
        if self._began is None:
            last = self.entry().attempt
            message = f"{self.pathspec} has no attempt {attempt!r}; its last is {last}"
            raise NotFoundError(message)

    def _find(self) -> None:
        for event in self._events():
            if event.attempt == self.only:
                self._began = self._began or event
                self._own_end = None if isinstance(event, TaskStarted) else event

    def ended(self) -> EndOfTask | None:
        """The event that ended the attempt."""
        if self._own_end is None:
            self._find()
        return self._own_end

    def last_event(self) -> TaskStarted | EndOfTask:
        """The event that ended the attempt; if it has not ended, the event that began it."""
        event = self.ended() or self._began
        assert event is not None, "an attempt without events is refused"  # noqa: S101 - an attempt has at least one event
        return event

    def status(self) -> Status:
        """The status of the attempt; a failure is one even if it was tried again."""
        ended = self.ended()
        if ended is None:
            return status_of(TaskState.STARTED, self.record.status())
        return _end_of(ended)

    def created_at(self) -> datetime:
        """When the attempt began."""
        return (self._began or self.last_event()).time


def _used(event: TaskSucceeded | TaskFailed) -> tuple[float | None, int | None]:
    return event.cpu_seconds, event.peak_memory


def seconds_of(event: EndOfTask) -> float:
    """How long the attempt that this event ended took; 0 for a clone."""
    return 0.0 if isinstance(event, TaskCloned) else event.seconds
