"""A run's log as JSON: one object on each line, with the same fields everywhere.

docs/reference.md lists them. No line of a task's output is told in pieces.
"""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from asyncflow.client.log_text import HELD_CHARACTERS, left_showing, shortened
from asyncflow.events.selection import EventFilter
from asyncflow.events.types import (
    RunCancelled,
    RunFailed,
    RunStarted,
    RunSucceeded,
    TaskCloned,
    TaskEvent,
    TaskFailed,
    TaskLogged,
    TaskRetried,
    TaskStarted,
    TaskSucceeded,
    TaskYielded,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from asyncflow.cli.nonblocking_output import NonblockingOutput
    from asyncflow.events.selection import Publication
    from asyncflow.events.types import Event

_ALL: Final = EventFilter[Any]()
_USED: Final = "seconds", "cpu_seconds", "peak_memory"
_FIELDS: Final[dict[type[Event], tuple[str, ...]]] = {
    RunStarted: ("parameters", "tags", "origin_run_id", "key", "user", "host", "pid"),
    TaskStarted: ("path", "item", "pid", "node"),
    TaskLogged: ("stream", "pid"),
    TaskSucceeded: ("path", *_USED, "pid"),
    TaskFailed: (
        *("path", "item", *_USED, "pid"),
        *("exception_type", "will_retry", "caught", "traceback"),
    ),
    TaskRetried: ("path", "after_seconds"),
    TaskCloned: ("path", "item", "origin_run_id", "origin_task_id"),
    TaskYielded: ("path", "index", "count"),
    RunSucceeded: ("seconds",),
    RunFailed: ("seconds", "step", "task_id", "item", "exception_type", "traceback"),
    RunCancelled: ("seconds", "reason", "by_shutdown"),
}
"""The fields of each event that are told in addition to those that all have."""
_WORDS: Final[dict[type[Event], str]] = {
    RunStarted: "run started",
    TaskStarted: "task started",
    TaskSucceeded: "task succeeded",
    TaskFailed: "task failed",
    TaskRetried: "task will be tried again",
    TaskCloned: "task taken over",
    TaskYielded: "task has yielded items",
    RunSucceeded: "run succeeded",
    RunFailed: "run failed",
    RunCancelled: "run cancelled",
}


class JsonLog:
    """Turns the events of one run, in their order, into lines of JSON."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, str], TaskLogged] = {}
        """Unfinished lines, by task and stream."""

    def render(self, batch: Iterable[Event]) -> str:
        """The lines of these events, each with its line end."""
        return "".join(_line_of(event) for each in batch for event in self._whole(each))

    def _whole(self, event: Event) -> Iterator[Event]:
        """The event itself; lines of output are put together."""
        if isinstance(event, TaskLogged):
            key = event.task_id, event.stream
            before = self._held.pop(key, None)
            line = event.line if before is None else before.line + event.line
            if not event.end and len(line) < HELD_CHARACTERS:
                self._held[key] = replace(event, line=shortened(line))
                return
            yield replace(event, line=left_showing(line))
            return
        if self._held and isinstance(event, TaskSucceeded | TaskFailed):
            for stream in ("stdout", "stderr"):
                unfinished = self._held.pop((event.task_id, stream), None)
                if unfinished is not None:
                    yield replace(unfinished, line=left_showing(unfinished.line))
        yield event


class JsonView:
    """Writes the log of a run as JSON, and with it whatever else is to be told."""

    needs_all: Final = True

    def __init__(self, output: NonblockingOutput) -> None:
        self._output, self._log = output, JsonLog()

    async def show(self, batch: Sequence[Publication]) -> None:
        """Write the lines of these events."""
        if not self._output.is_unread:
            await self._output.write(self._log.render(_ALL.pick(batch)))

    def note(self, text: str) -> None:
        """Write a note that is not part of the log."""
        self._output.write_nowait(_line(datetime.now(UTC), "info", "Note", text.strip("\n")))

    def warn(self, time: datetime, text: str) -> None:
        """Write a warning of the library."""
        self._output.write_nowait(_line(time, "warning", "Warning", text))

    async def close(self) -> None:
        """Do nothing: each line is complete."""


def _line(time: datetime, level: str, event: str, message: str, **fields: Any) -> str:
    told = {"time": time.isoformat(timespec="microseconds"), "level": level, "event": event}
    return f"{json.dumps({**told, 'message': message, **fields})}\n"


def _line_of(event: Event) -> str:
    fields: dict[str, Any] = {"flow": event.flow, "run": event.run_id, "seq": event.seq}
    if isinstance(event, TaskEvent):
        fields |= {"step": event.step, "task": event.task_id, "attempt": event.attempt}
    for name in _FIELDS.get(type(event), ()):
        value = getattr(event, name)
        if value or isinstance(value, bool | float):
            fields["task" if name == "task_id" else name] = value
    return _line(event.time, _level(event), type(event).__name__, _message(event), **fields)


def _level(event: Event) -> str:
    match event:
        case TaskFailed():
            return "warning" if event.will_retry or event.caught or event.was_stopped else "error"
        case RunFailed():
            return "error"
        case RunCancelled():
            return "warning"
    return "info"


def _message(event: Event) -> str:
    """What happened, in words."""
    match event:
        case TaskLogged():
            return event.line
        case TaskFailed() if event.was_stopped:
            return f"task stopped: {event.message}"
        case TaskFailed() | RunFailed():
            return f"{_WORDS[type(event)]}: {event.exception_type}: {event.message}"
        case RunCancelled() if event.reason:
            return f"{_WORDS[RunCancelled]}: {event.reason}"
    return _WORDS.get(type(event), type(event).__name__)
