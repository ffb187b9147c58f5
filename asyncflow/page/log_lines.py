"""What the tasks of a run printed, line by line, searched here and not in the browser.

Among the lines stand the failures and the end of the run, with `event` as their stream.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from asyncflow.client.log_text import left_showing
from asyncflow.errors import JournalError, NotFoundError
from asyncflow.events.packing import unpack_events
from asyncflow.events.records import ENDINGS, FAILED, LOGGED, RETRIED
from asyncflow.events.types import (
    Event,
    RunCancelled,
    RunFailed,
    RunSucceeded,
    TaskCloned,
    TaskEvent,
    TaskFailed,
    TaskLogged,
    TaskRetried,
    to_microseconds,
)
from asyncflow.page.answers import ROOM_BYTES, cut, size_of
from asyncflow.page.event_list import SEARCH_BYTES, SEARCH_SECONDS
from asyncflow.page.journal_marks import marks_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncflow.client.run_files import RunRecord

_LONG: Final = 4_000  # characters of a line
_TOLD: Final = frozenset({FAILED, RETRIED, *ENDINGS})
_EVENT: Final = "event"
_MOST_ORIGINS: Final = 100  # runs that resumed each other


@dataclass(frozen=True, slots=True)
class LogChoice:
    """Which lines are asked for."""

    step: str | None = None
    task: int | None = None
    attempt: int | None = None
    stream: str | None = None
    find: str = ""
    after: int = 0
    limit: int = 500
    tail: bool = False


class _Search:
    """Looks for lines in one journal, as long as it may."""

    def __init__(self, record: RunRecord, choice: LogChoice) -> None:
        self._record, self._choice = record, choice
        self._find = choice.find.casefold()
        # Most records are passed over by their bytes. Other cases of these letters have them, too.
        self._needle = self._find.encode() if self._find.isascii() else b""
        self._step = choice.step.encode() if choice.step else b""
        self._until = time.monotonic() + SEARCH_SECONDS
        self._room = SEARCH_BYTES
        self._started = record.summary().started
        self.searched = 0
        """Records that were looked at."""

    @property
    def is_over(self) -> bool:
        """Whether it has read as much as it may."""
        return self._room < 0 or time.monotonic() > self._until

    def lines_of(self, code: int, payload: bytes) -> Iterator[dict[str, Any]]:
        self.searched += 1
        self._room -= len(payload)
        if code != LOGGED and (code not in _TOLD or self._choice.stream is not None):
            return
        if self._step not in payload or self._needle not in payload.lower():
            return
        place = self._record.place
        for event in unpack_events(payload, place.flow, self._record.run_id):
            if event.seq > self._choice.after or self._choice.tail:
                line = self._line(event)
                if line is not None:
                    yield line

    def _line(self, event: Event) -> dict[str, Any] | None:
        choice = self._choice
        step, task, attempt = "", None, None
        if isinstance(event, TaskEvent):
            step, task, attempt = event.step, event.task_id, event.attempt
        stream = event.stream if isinstance(event, TaskLogged) else _EVENT
        wanted = (
            (choice.step, step),
            (None if choice.task is None else str(choice.task), task),
            (choice.attempt, attempt),
            (choice.stream, stream),
        )
        if any(wish is not None and wish != found for wish, found in wanted):
            return None
        text = left_showing(event.line) if isinstance(event, TaskLogged) else said_of(event)
        if text is None or (self._find and self._find not in text.casefold()):
            return None
        return {
            "seq": event.seq,
            "time": event.time.isoformat(),
            "at": (to_microseconds(event.time) - self._started) // 1000,
            "step": step,
            "task_id": task,
            "attempt": attempt,
            "stream": stream,
            "text": cut(text, _LONG),
            "cut": len(text) > _LONG,
            "partial": isinstance(event, TaskLogged) and not event.end,
        }


def said_of(event: Event) -> str | None:
    """What the log says of an event that is no output; None if it says nothing."""
    said = None
    match event:
        case TaskFailed():
            how = ", and the failure was caught" if event.caught else ""
            said = f"The task has failed{how}: {_failure(event)}"
        case TaskRetried():
            after = f" in {event.after_seconds:g} s" if event.after_seconds else ""
            said = f"The task is tried again{after}."
        case RunSucceeded():
            said = "The run has succeeded."
        case RunFailed():
            said = "The run has failed" + (f" in {event.step}." if event.step else ".")
        case RunCancelled():
            said = "The run was cancelled" + (f": {event.reason}" if event.reason else ".")
    return said


def _failure(event: TaskFailed) -> str:
    return f"{event.exception_type}: {event.message}".partition("\n")[0]


def log_lines(record: RunRecord, choice: LogChoice) -> dict[str, Any]:
    """The chosen lines, and where to go on.

    Raises:
        JournalError: The run is damaged.
        NotFoundError: There is no such task.
    """
    begin, from_run = 0, None
    if choice.task is not None:
        record, choice, begin, from_run = _of_task(record, choice)
    if choice.tail:
        marks_of(record).go_to_end()  # the first time that takes long; it is no part of the search
    search = _Search(record, choice)
    found = _last_lines(record, search, choice) if choice.tail else None
    if found is None:
        found = _next_lines(record, search, choice, begin)
    return {**found, "searched": search.searched, "from_run": from_run}


def _next_lines(
    record: RunRecord, search: _Search, choice: LogChoice, begin: int
) -> dict[str, Any]:
    lines: list[dict[str, Any]] = []
    after, room, marks = choice.after, ROOM_BYTES, marks_of(record)
    records = marks.records_from(begin) if begin else marks.records_after(choice.after)
    for _, code, seq, payload in records:
        if search.is_over:
            return {"lines": lines, "after": after, "end": False}
        for line in search.lines_of(code, payload):
            room -= size_of(line) + 1
            if len(lines) == choice.limit or room < 0:
                return {"lines": lines, "after": after, "end": False}
            lines.append(line)
            after = line["seq"]
        if code != LOGGED:
            after = max(after, seq)
    return {"lines": lines, "after": after, "end": True}


def _last_lines(record: RunRecord, search: _Search, choice: LogChoice) -> dict[str, Any]:
    lines: list[dict[str, Any]] = []
    after, room = 0, ROOM_BYTES
    for part in marks_of(record).parts_backwards():
        after = after or max((seq for _, _, seq, _ in part), default=0)
        found = [line for _, code, _, payload in part for line in search.lines_of(code, payload)]
        for line in reversed(found):
            room -= size_of(line) + 1
            if len(lines) == choice.limit or room < 0:
                break
            lines.append(line)
        if len(lines) == choice.limit or room < 0 or search.is_over:
            break
    after = max([after, *(line["seq"] for line in lines[:1])])
    return {"lines": lines[::-1], "after": after, "end": True}


def _of_task(record: RunRecord, choice: LogChoice) -> tuple[RunRecord, LogChoice, int, str | None]:
    """Where a task's output lies: if it was taken over, with the run that did the work."""
    from dataclasses import replace

    task, from_run = choice.task or 0, None
    for _ in range(_MOST_ORIGINS):
        entry = record.tasks.entry(task)
        if entry is None:
            raise NotFoundError(f"{record.pathspec} has no task {task}")
        ended = record.tasks.ended_task(task, entry)
        if not isinstance(ended, TaskCloned):
            # An attempt before the last one began earlier, and nobody knows where.
            begin = entry.started if not entry.attempt and not choice.after else 0
            choice = replace(choice, task=task, step=record.tasks.step_of(entry))
            return record, choice, begin, from_run
        origin = type(record)(record.place, ended.origin_run_id)
        if not origin.exists() or not ended.origin_task_id.isdecimal():
            raise NotFoundError(
                f"the output of {record.pathspec}/{ended.step}/{task} is stored with the run "
                f"{ended.origin_run_id}, which is no longer in the store"
            )
        record, task, from_run = origin, int(ended.origin_task_id), origin.pathspec
    raise JournalError(f"{record.pathspec} was taken over too often")
