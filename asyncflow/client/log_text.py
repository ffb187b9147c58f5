r"""A run's log: turns events into the text of whole lines, in the format of Metaflow's log.

    2026-11-23 22:24:43.009 [1795472682985927/start/1 (pid 2920)] Task is starting.

A task for an item of a foreach is said to start for that, by a short text.

No clock and no I/O; times are the events' own, in local time. It runs on the engine's event loop,
so an event costs a few microseconds, and memory is bounded: for each task and stream, one
unfinished line of at most `HELD_CHARACTERS`. As in Metaflow, both streams of a task go into the one
log, and so to standard output.

The output of a task cannot break the format. An unfinished line waits until it ends, or until its
task has ended. Of a line with carriage returns (a progress bar), only what a terminal would still
show is kept: the text after the last one. Other control characters are unchanged where the log goes
to a file or a pipe. On a terminal they become visible, as `\x1b`, except colours, which stay and
end with their line.
"""

from __future__ import annotations

from time import localtime, strftime
from typing import TYPE_CHECKING, Any, Final

from asyncflow._support.terminal_text import visible_line, visible_output
from asyncflow.events.output_lines import PIECE_BYTES
from asyncflow.events.packing import events_of
from asyncflow.events.records import (
    ATTEMPT_AT,
    DATA_AT,
    ITEM_AT,
    LOGGED,
    PID_AT,
    STARTED,
    STEP_AT,
    STREAMS,
    SUCCEEDED,
    TASK_AT,
    TIME_AT,
    item_text_in,
    step_of,
    stream_of,
    task_of,
    time_of,
)
from asyncflow.events.selection import OutputChunk, RecordedEvents
from asyncflow.events.types import (
    RunCancelled,
    RunFailed,
    RunStarted,
    RunSucceeded,
    TaskCloned,
    TaskFailed,
    TaskLogged,
    TaskRetried,
    TaskStarted,
    TaskSucceeded,
    to_microseconds,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from asyncflow.events.selection import Publication
    from asyncflow.events.types import Event

HELD_CHARACTERS: Final = 1 << 18
"""A longer line is shown in several parts, so that a task that never ends its line needs no
memory."""

_COLOUR_OFF: Final = "\x1b[0m"
_STARTED_PID_AT, _SUCCEEDED_PID_AT = PID_AT[STARTED], PID_AT[SUCCEEDED]
_STARTED_ITEM_AT: Final = ITEM_AT[STARTED]


def left_showing(line: str) -> str:
    """The part of a line with carriage returns that a terminal would still show."""
    return line.rstrip("\r").rpartition("\r")[2]


class TimeStamps:
    """Shows times as `2026-11-23 22:24:43.009`, in local time."""

    __slots__ = ("_second", "_text")

    def __init__(self) -> None:
        self._second, self._text = -1, ""  # the last one: most events fall into the same second

    def of(self, time: datetime) -> str:
        """The text of a time."""
        return self.of_microseconds(to_microseconds(time))

    def of_microseconds(self, time: int) -> str:
        """The same, for a number of microseconds since 1970."""
        second, microsecond = divmod(time, 1_000_000)
        if second != self._second:
            self._second = second
            self._text = strftime("%Y-%m-%d %H:%M:%S", localtime(second))
        return f"{self._text}.{microsecond // 1000:03d}"


class LogRenderer:
    """Turns the events of one run, in their order, into the lines of its log."""

    def __init__(
        self, *, terminal: bool = False, colour: bool = False, brief: bool = False
    ) -> None:
        """Begin a log.

        Args:
            terminal: Show control characters as text, except colours.
            colour: Colour the lines.
            brief: Leave out that tasks begin, succeed and are taken over; of a failure give its
                type and message alone. Lines of a task for an item of a foreach name that.
        """
        self._terminal = terminal
        self._colour = colour
        self._brief = brief
        self._held: dict[tuple[str, str], str] = {}  # unfinished lines, by task and stream
        self._items: dict[str, str] = {}  # of running tasks, as texts, where lines begin with them
        self._stamps = TimeStamps()
        self._before_stamp = "\x1b[35m" if colour else ""
        self._begun = self._marked("Task is starting.")
        self._ended_well = self._marked("Task finished successfully.")

    def render(self, batch: Iterable[Publication]) -> str:
        """The lines of these events, each with its line end; empty if they have nothing to show."""
        lines: list[str] = []
        for item in batch:
            if isinstance(item, RecordedEvents):
                lines.append(self.of_records(item.values, item.flow, item.run_id))
            elif isinstance(item, OutputChunk):
                lines.append(self.of_records((item.values,), item.flow, item.run_id))
            else:
                self._render(item, lines)
        return "".join(lines)

    def of_records(self, records: Iterable[Sequence[Any]], flow: str, run_id: str) -> str:
        """The lines of the fields of journal records; empty if they have nothing to show.

        The records of which a log mostly consists need no events, which saves most of the time.
        Those of a wide run take no call for most of them: the two of a task follow each other, so
        what is before both lines is made once.
        """
        lines: list[str] = []
        plain, time, stamp = not self._brief, -1, ""
        of_task: tuple[object, ...] = ()
        head = ""
        for values in records:
            code = values[0]
            if code == STARTED and plain and not values[ATTEMPT_AT]:
                task, pid = values[TASK_AT], values[_STARTED_PID_AT]
                item: str = values[_STARTED_ITEM_AT]
                body = self._marked(f"Task is starting{_for_item(item)}.") if item else self._begun
            elif code == SUCCEEDED and plain and not (self._held and self._holds_of(values)):
                task, pid, body = values[TASK_AT], values[_SUCCEEDED_PID_AT], self._ended_well
            else:
                lines.append(self._of_record(values, flow, run_id))
                continue
            if values[TIME_AT] != time:
                time = values[TIME_AT]
                stamp = self._before_stamp + self._stamps.of_microseconds(time)
            if of_task != (task, pid, values[STEP_AT]):
                of_task = task, pid, values[STEP_AT]
                head = self._named(run_id, values[STEP_AT], str(task), pid)
            lines.append(stamp + head + body)
        return "".join(lines)

    def _of_record(self, values: Sequence[Any], flow: str, run_id: str) -> str:
        """The lines of one record that is looked at by itself."""
        code = values[0]
        if code == LOGGED:
            text = self._output(values, run_id)
        elif code == STARTED and self._brief:
            text = self._briefly_started(values)
        elif code == SUCCEEDED and self._brief:
            text = self._briefly_succeeded(values)
        else:
            text = None
        return self.render(events_of(values, flow, run_id)) if text is None else text

    def _briefly_started(self, values: Sequence[Any]) -> str:
        item = item_text_in(values)
        if item:
            self._items[str(task_of(values))] = visible_line(item)
        return ""

    def _briefly_succeeded(self, values: Sequence[Any]) -> str | None:
        if self._holds_of(values):
            return None
        self._items.pop(str(task_of(values)), None)
        return ""

    def _holds_of(self, values: Sequence[Any]) -> bool:
        """Whether a line of this record's task is unfinished."""
        return not self._held.keys().isdisjoint(_outputs_of(str(task_of(values))))

    def _output(self, values: Sequence[Any], run_id: str) -> str | None:
        """The lines of a record of output; None if one is unfinished or needs a closer look."""
        data: bytes = values[DATA_AT]
        if data[-1:] != b"\n" or b"\r" in data or len(data) > PIECE_BYTES:
            return None
        if self._held and (str(task_of(values)), STREAMS[stream_of(values)]) in self._held:
            return None
        try:
            lines = data[:-1].decode()
        except UnicodeDecodeError:
            return None
        prefix = self._prefix(values, run_id)
        if self._terminal and not lines.isprintable():
            return "".join(f"{prefix}{visible_output(line)}\n" for line in lines.split("\n"))
        return prefix + lines.replace("\n", f"\n{prefix}") + "\n"

    def _prefix(self, values: Sequence[Any], run_id: str) -> str:
        """What is before each line of a record of a task."""
        pid, task = values[PID_AT[values[0]]], str(task_of(values))
        return self._head(run_id, step_of(values), task, pid, time_of(values))

    def unfinished(self, event: TaskSucceeded | TaskFailed) -> str:
        """Return the unfinished line of this event's task, and forget it."""
        lines: list[str] = []
        self._release(event, lines)
        return "".join(lines)

    def warning(self, time: datetime, text: str) -> str:
        """The lines of a warning of the library, which is not an event."""
        lines = [visible_line(line) for line in f"Warning: {text}".split("\n")]
        return "".join(self._stamped(time, line, colour=33) for line in lines)

    def _render(self, event: Event, lines: list[str]) -> None:
        match event:
            case TaskLogged():
                self._logged(event, lines)
            case TaskStarted() if self._brief:
                if event.item:
                    self._items[event.task_id] = visible_line(event.item)
            case TaskStarted():
                retry = " (retry)" if event.attempt else ""
                text = f"Task is starting{retry}{_for_item(event.item)}."
                lines.append(self._line(event, text, bold=True))
            case TaskSucceeded() | TaskFailed():
                self._ended(event, lines)
            case TaskRetried() if event.after_seconds > 0:
                text = f"Task will be tried again in {event.after_seconds:g} seconds."
                lines.append(self._line(event, text))
            case TaskCloned() if not self._brief:
                origin = f"{event.origin_run_id}/{event.step}/{event.origin_task_id}"
                text = f"Cloning results of a previously run task {origin}"
                lines.append(self._line(event, text))
            case _:
                self._of_run(event, lines)

    def _ended(self, event: TaskSucceeded | TaskFailed, lines: list[str]) -> None:
        if isinstance(event, TaskFailed):
            self._failed(event, lines)
        else:
            if self._held:
                self._release(event, lines)
            if not self._brief:
                lines.append(self._line(event, "Task finished successfully.", bold=True))
        self._items.pop(event.task_id, None)

    def _of_run(self, event: Event, lines: list[str]) -> None:
        match event:
            case RunStarted():
                if event.project:
                    name, branch = (event.project.get(key, "") for key in ("name", "branch_name"))
                    lines.append(f"{visible_line(f'Project: {name}, Branch: {branch}')}\n")
                lines.append(self._plain(event, f"Workflow starting (run-id {event.run_id}):"))
            case RunSucceeded():
                lines.append(self._plain(event, "Done!"))
            case RunFailed():
                lines.append(self._plain(event, "Workflow failed.", bad=True))
            case RunCancelled():
                reason = f": {visible_line(event.reason)}" if event.reason else ""
                lines.append(self._plain(event, f"Workflow cancelled{reason}.", bad=True))

    # --- what tasks print ---

    def _logged(self, event: TaskLogged, lines: list[str]) -> None:
        line = event.line
        if self._held or not event.end:
            key = event.task_id, event.stream
            line = self._held.pop(key, "") + line
            if not event.end and len(line) < HELD_CHARACTERS:
                self._held[key] = shortened(line)
                return
        lines.append(self._printed(event, line))

    def _printed(self, event: TaskLogged | TaskSucceeded | TaskFailed, line: str) -> str:
        if "\r" in line:
            line = left_showing(line)
        return self._line(event, visible_output(line) if self._terminal else line)

    def _release(self, event: TaskSucceeded | TaskFailed, lines: list[str]) -> None:
        for key in _outputs_of(event.task_id):
            line = self._held.pop(key, "")
            if line:
                lines.append(self._printed(event, line))

    def _failed(self, event: TaskFailed, lines: list[str]) -> None:
        self._release(event, lines)
        if event.was_stopped:
            lines.append(self._line(event, f"Task was stopped: {event.message}.", bold=True))
            return
        text = f"{event.exception_type}: {event.message}"
        if self._brief:
            how = ("Task failed", "Task failed, and the failure is caught")[event.caught]
            lines.append(self._line(event, f"{how}: {visible_line(text)}", bad=not event.caught))
            return
        if not event.caught:  # otherwise `@catch` says whether it is printed
            text = event.traceback or text
        for line in text.rstrip("\n").split("\n"):
            shown = line.replace("\r", "\\r")
            shown = visible_output(shown) if self._terminal else shown
            lines.append(self._line(event, shown, bad=True))
        if event.caught:
            item = _for_item(event.item)
            text = f"Task failed{item}; the failure is caught, and the flow goes on."
            lines.append(self._line(event, text, bold=True))
            return
        lines.append(self._line(event, f"Task failed{_for_item(event.item)}.", bold=True, bad=True))

    # --- the shape ---

    def _line(
        self,
        event: TaskStarted | TaskLogged | TaskSucceeded | TaskFailed | TaskRetried | TaskCloned,
        body: str,
        *,
        bold: bool = False,
        bad: bool = False,
    ) -> str:
        pid, time = getattr(event, "pid", 0), to_microseconds(event.time)
        head = self._head(event.run_id, event.step, event.task_id, pid, time)
        return head + (self._marked(body, bold=bold, bad=bad) if bold or bad else f"{body}\n")

    def _head(self, run_id: str, step: str, task_id: str, pid: int, time: int) -> str:
        """What is before each line of a task."""
        stamp = self._stamps.of_microseconds(time)
        return self._before_stamp + stamp + self._named(run_id, step, task_id, pid)

    def _named(self, run_id: str, step: str, task_id: str, pid: int) -> str:
        """What is between the time and the text of a line."""
        item = self._items.get(task_id, "") if self._items else ""
        task = f"{task_id} {item}" if item else task_id
        process = f" (pid {pid})" if pid else ""
        name = visible_line(f"[{run_id}/{step}/{task}{process}]")
        return f"\x1b[32m {name}{_COLOUR_OFF} " if self._colour else f" {name} "

    def _marked(self, body: str, *, bold: bool = True, bad: bool = False) -> str:
        if not self._colour:
            return f"{body}\n"
        return f"\x1b[{1 if bold else 0};{31 if bad else 39}m{body}{_COLOUR_OFF}\n"

    def _plain(self, event: Event, body: str, *, bad: bool = False) -> str:
        return self._stamped(event.time, body, colour=31 if bad else 39)

    def _stamped(self, time: datetime, body: str, *, colour: int) -> str:
        if not self._colour:
            return f"{self._stamps.of(time)} {body}\n"
        return f"\x1b[35m{self._stamps.of(time)}\x1b[1;{colour}m {body}{_COLOUR_OFF}\n"


def _outputs_of(task_id: str) -> list[tuple[str, str]]:
    """The keys of a task's unfinished lines."""
    return [(task_id, stream) for stream in STREAMS]


def _for_item(item: str) -> str:
    return f" for {visible_line(item)}" if item else ""


def shortened(line: str) -> str:
    """An unfinished line, without what later carriage returns have hidden."""
    if "\r" not in line:
        return line
    kept = left_showing(line)
    # The last return hides what is before it only when something follows.
    return f"{kept}\r" if line.endswith("\r") else kept
