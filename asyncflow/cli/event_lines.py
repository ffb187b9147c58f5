"""The lines of `asyncflow events`: from records where most are, else from events."""

from __future__ import annotations

from contextlib import suppress
from json.encoder import encode_basestring_ascii as in_json
from typing import TYPE_CHECKING, Any, Final, cast

from asyncflow.client.log_text import TimeStamps
from asyncflow.errors import RecordError
from asyncflow.events.drafts import event_of
from asyncflow.events.event_json import to_json, to_json_data
from asyncflow.events.manifests import is_whole, unpack_told
from asyncflow.events.output_lines import split_lines
from asyncflow.events.output_records import output_of
from asyncflow.events.records import (
    FIELDS,
    HEAD_FIELDS,
    LOGGED,
    STARTED,
    STREAMS,
    SUCCEEDED,
    seq_of,
    step_of,
    task_of,
    time_of,
)
from asyncflow.events.selection import OutputChunk, RecordedEvents
from asyncflow.events.types import TaskEvent, TaskLogged, from_microseconds

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from asyncflow.events.selection import Publication
    from asyncflow.events.types import Event, TaskSucceeded

_TEXT_CHARACTERS: Final = 200  # the most of a field in the list of events; --json shows all of it
_HEAD: Final = {"type", "flow", "run_id", "seq", "time", "graph", "items"}
_TASK_HEAD: Final = {*_HEAD, "step", "task_id"}
_NAMES: Final = {STARTED: "TaskStarted", LOGGED: "TaskLogged", SUCCEEDED: "TaskSucceeded"}
_SHOWN: Final = {
    code: [
        (at, name) for at, name in enumerate(FIELDS[code], HEAD_FIELDS) if name not in _TASK_HEAD
    ]
    for code in (STARTED, SUCCEEDED)
}
"""Where the fields of a record lie that are shown."""
_NEWLINE: Final = "\n"
_OF_OUTPUT: Final = ("attempt", "stream", "line", "end", "pid")


class EventLines:
    """Turns the events of a run into lines."""

    def __init__(self, *, as_json: bool) -> None:
        """Show all of each event as JSON, or the main facts for people."""
        self._as_json = as_json
        self._stamps = TimeStamps()

    def of(self, item: Publication) -> str:
        """The lines of an event, or of all events that a record of output stands for.

        Each has its line end.

        Raises:
            JournalError: A record of output is invalid.
        """
        if isinstance(item, OutputChunk):
            return self._of_output(item)
        if isinstance(item, RecordedEvents):
            return "".join(
                self._of_task(values, item)
                if values[0] in _SHOWN and not self._as_json
                else self._of_event(event_of(values, item.flow, item.run_id, item.resolve))
                for values in item.values
            )
        return self._of_event(item)

    def _of_output(self, chunk: OutputChunk) -> str:
        seq, time, step, task, attempt, stream, pid, data, _ = output_of(chunk.values)
        lines = split_lines(data)
        if self._as_json:
            names = f'"flow": {in_json(chunk.flow)}, "run_id": "{chunk.run_id}"'
            told = (
                f', "time": "{from_microseconds(time).isoformat()}", "step": {in_json(step)}, '
                f'"task_id": "{task}", "attempt": {attempt}, "stream": "{STREAMS[stream]}"'
            )
            return "".join(
                f'{{"type": "TaskLogged", {names}, "seq": {number}{told}, '
                f'"line": {in_json(line)}, "end": {in_json(end)}, "pid": {pid}}}\n'
                for number, (line, end) in enumerate(lines, seq)
            )
        head = f" {self._stamps.of_microseconds(time)} {_NAMES[LOGGED]:<13} {step}/{task}"
        head += f" attempt={attempt}" * bool(attempt) + f" stream={STREAMS[stream]!r}"
        last = f" pid={pid}\n" if pid else "\n"
        whole = _told("end", "\n") + last
        return "".join(
            f"{number:>6}{head}{_told('line', line)}"
            f"{whole if end == _NEWLINE else _told('end', end) + last}"
            for number, (line, end) in enumerate(lines, seq)
        )

    def _of_task(self, values: Sequence[Any], group: RecordedEvents) -> str:
        code, shown = values[0], ""
        for at, field in _SHOWN[code]:
            value = values[at]
            if not value:
                continue
            if field == "manifest":
                shown += _told("artifacts", list(_names(value, values, group)))
            elif field == "cards":
                shown += _told(field, to_json_data(event_of(values, "", "", group.resolve))[field])
            else:
                shown += _told(field, value)
        stamp, where = self._stamps.of_microseconds(time_of(values)), task_of(values)
        return f"{seq_of(values):>6} {stamp} {_NAMES[code]:<13} {step_of(values)}/{where}{shown}\n"

    def _of_event(self, event: Event) -> str:
        if self._as_json:
            return f"{to_json(event)}\n"
        if isinstance(event, TaskEvent):
            where, head = f" {event.step}/{event.task_id}", _TASK_HEAD
        else:
            where, head = "", _HEAD
        shown = "".join(_told(field, value) for field, value in _said(event) if field not in head)
        stamp = self._stamps.of(event.time)
        return f"{event.seq:>6} {stamp} {type(event).__name__:<13}{where}{shown}\n"


def _names(manifest: bytes, values: Sequence[Any], group: RecordedEvents) -> Iterable[str]:
    """The names of all artifacts.

    Raises:
        JournalError: A record that says them is damaged.
    """
    if is_whole(manifest):
        with suppress(RecordError):  # else the event says whose manifest it is
            return unpack_told(manifest).refs
    event = event_of(values, group.flow, group.run_id, group.resolve)
    return cast("TaskSucceeded", event).artifacts


def _said(event: Event) -> Iterator[tuple[str, Any]]:
    if isinstance(event, TaskLogged):  # there is nothing to be made of its fields
        return ((name, getattr(event, name)) for name in _OF_OUTPUT)
    data = to_json_data(event)
    if "artifacts" in data:
        data["artifacts"] = list(data["artifacts"])
    return iter(data.items())


def _told(field: str, value: object) -> str:
    """A field as people see it; nothing if it says nothing."""
    if not value:
        return ""
    text = repr(value)
    if len(text) > _TEXT_CHARACTERS:
        text = text[: _TEXT_CHARACTERS - 1] + "…"
    return f" {field}={text}"
