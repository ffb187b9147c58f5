"""The lines of `asyncflow events`: from records where most are, else from events."""

from __future__ import annotations

from functools import lru_cache
from json.encoder import encode_basestring_ascii as in_json
from typing import TYPE_CHECKING, Any, Final, cast

from asyncflow.client.log_text import TimeStamps
from asyncflow.errors import RecordError
from asyncflow.events.drafts import event_of
from asyncflow.events.event_json import to_json, to_json_data
from asyncflow.events.manifests import is_whole, unpack_manifest, unpack_told
from asyncflow.events.output_lines import PIECE_BYTES, split_lines
from asyncflow.events.records import FIELDS, HEAD_FIELDS, STARTED, STREAMS, SUCCEEDED
from asyncflow.events.selection import OutputChunk, RecordedEvents
from asyncflow.events.types import TaskEvent, TaskLogged, from_microseconds

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from asyncflow.events.selection import Publication
    from asyncflow.events.types import Event
    from asyncflow.values import ArtifactRef

_NEWLINE: Final = "\n"
_TEXT_CHARACTERS: Final = 200  # the most of a field in the list of events; --json shows all of it
_SHOWN_WHOLE: Final = _TEXT_CHARACTERS - 2  # a plain text, beside its quotes
_SHORT: Final = _SHOWN_WHOLE // 10  # any text: a character takes up to ten, as `\U0010ffff`
_FEW: Final = 10  # indexes of a path: each takes up to thirteen characters
_PLAIN: Final = bytes({*range(0x20, 0x7F), ord(_NEWLINE)} - {*b"\"'\\"})
"""What output may have in a list of events and in JSON as it is, but for the line ends."""
_HEAD: Final = {"type", "flow", "run_id", "seq", "time", "graph", "items"}
_TASK_HEAD: Final = {*_HEAD, "step", "task_id"}
_SIZES: Final = {code: HEAD_FIELDS + len(FIELDS[code]) for code in (STARTED, SUCCEEDED)}
"""How many fields a record of this version has."""
_MANIFEST_AT: Final = HEAD_FIELDS + FIELDS[SUCCEEDED].index("manifest")
_ITEMS_AT: Final = HEAD_FIELDS + FIELDS[SUCCEEDED].index("items")
_KEPT_BYTES: Final = 1024  # manifests up to this length are kept: those of many tasks are the same
_OF_OUTPUT: Final = ("attempt", "stream", "line", "end", "pid")


class EventLines:
    """Turns the events of a run into lines."""

    def __init__(self, *, as_json: bool) -> None:
        """Show all of each event as JSON, or the main facts for people."""
        self._as_json = as_json
        self._stamps = TimeStamps()
        self._time, self._moment = -1, ""  # the last one: many records have the same time
        self._run, self._json_run = ("", ""), ""  # the last one, too

    def of_all(self, items: Iterable[Publication]) -> str:
        """The lines of events, and of those that records stand for, each with its line end.

        Raises:
            JournalError: A record of output is invalid.
        """
        of_output = self._json_of_output if self._as_json else self._of_output
        of_start = self._json_of_start if self._as_json else self._of_start
        of_other = self._json_of_other if self._as_json else self._of_other
        started_size = _SIZES[STARTED]
        lines: list[str] = []
        for item in items:
            if type(item) is OutputChunk:
                lines.append(of_output(item))
            elif type(item) is RecordedEvents:
                for values in item.values:
                    is_start = values[0] == STARTED and len(values) == started_size
                    lines.append(of_start(values, item) if is_start else of_other(values, item))
            else:
                lines.append(self._of_event(cast("Event", item)))
        return "".join(lines)

    def _at(self, time: int) -> str:
        """When an event was, as it is shown."""
        if time != self._time:
            self._time = time
            if self._as_json:
                self._moment = from_microseconds(time).isoformat()
            else:
                self._moment = self._stamps.of_microseconds(time)
        return self._moment

    def _run_of(self, item: OutputChunk | RecordedEvents) -> str:
        """The run of records, as JSON."""
        run = item.flow, item.run_id
        if run != self._run:
            self._run, self._json_run = run, f'"flow": {in_json(run[0])}, "run_id": "{run[1]}"'
        return self._json_run

    # --- output ---

    def _of_output(self, chunk: OutputChunk) -> str:
        _, seq, time, step, task, attempt, stream, pid, data, *_ = chunk.values
        head = f" {self._at(time)} TaskLogged    {step}/{task}"
        head += f" attempt={attempt}" * bool(attempt) + f" stream={STREAMS[stream]!r}"
        last = f" pid={pid}\n" if pid else "\n"
        whole = _told("end", _NEWLINE) + last
        plain = _plain_lines(data)
        if plain is not None:
            return "".join(
                [
                    f"{number:>6}{head} line='{line}'{whole}"
                    if 0 < len(line) <= _SHOWN_WHOLE
                    else f"{number:>6}{head}{_told('line', line)}{whole}"
                    for number, line in enumerate(plain, seq)
                ]
            )
        return "".join(
            [
                f"{number:>6}{head}{_told('line', line)}"
                f"{whole if end == _NEWLINE else _told('end', end) + last}"
                for number, (line, end) in enumerate(split_lines(data), seq)
            ]
        )

    def _json_of_output(self, chunk: OutputChunk) -> str:
        _, seq, time, step, task, attempt, stream, pid, data, *_ = chunk.values
        before = f'{{"type": "TaskLogged", {self._run_of(chunk)}, "seq": '
        told = (
            f', "time": "{self._at(time)}", "step": {in_json(step)}, "task_id": "{task}", '
            f'"attempt": {attempt}, "stream": "{STREAMS[stream]}", "line": '
        )
        last = f', "pid": {pid}}}\n'
        whole = f', "end": {in_json(_NEWLINE)}{last}'
        plain = _plain_lines(data)
        if plain is not None:
            return "".join(
                [f'{before}{number}{told}"{line}"{whole}' for number, line in enumerate(plain, seq)]
            )
        return "".join(
            [
                f'{before}{number}{told}{in_json(line)}, "end": {in_json(end)}{last}'
                for number, (line, end) in enumerate(split_lines(data), seq)
            ]
        )

    # --- what begins and ends an attempt ---

    def _of_start(self, values: Sequence[Any], _: RecordedEvents) -> str:
        _, seq, time, step, task, attempt, path, pid, parents, node, item = values
        return (
            f"{seq:>6} {self._at(time)} TaskStarted   {step}/{task}"
            f"{f' attempt={attempt}' if attempt else ''}"
            f"{f' path={path}' if 0 < len(path) <= _FEW else _told('path', path)}"
            f"{f' pid={pid}' if pid else ''}{_told('parents', parents) if parents else ''}"
            f"{_told('node', node) if node else ''}"
            f"{f' item={item!r}' if 0 < len(item) <= _SHORT else _told('item', item)}\n"
        )

    def _of_other(self, values: Sequence[Any], group: RecordedEvents) -> str:
        is_usual = values[0] == SUCCEEDED and len(values) == _SIZES[SUCCEEDED]
        if is_usual and is_whole(values[_MANIFEST_AT]):
            try:
                return self._of_success(values, group)
            except RecordError:
                pass  # the event says whose manifest it is
        return self._of_event(event_of(values, group.flow, group.run_id, group.resolve))

    def _of_success(self, values: Sequence[Any], group: RecordedEvents) -> str:
        _, seq, time, step, task, attempt, path, manifest, seconds, pid, fanout, *more = values
        _, log, failed, choice, cpu_seconds, peak_memory, cards = more
        names = _kept_names if len(manifest) <= _KEPT_BYTES else _names
        shown = ""
        if cards:
            event = event_of(values, group.flow, group.run_id, group.resolve)
            shown = _told("cards", to_json_data(event)["cards"])
        # a call for each field would take as long as all the rest
        return (
            f"{seq:>6} {self._at(time)} TaskSucceeded {step}/{task}"
            f"{f' attempt={attempt}' if attempt else ''}"
            f"{f' path={path}' if 0 < len(path) <= _FEW else _told('path', path)}{names(manifest)}"
            f"{f' seconds={seconds}' if seconds else ''}{f' pid={pid}' if pid else ''}"
            f"{f' fanout={fanout}' if fanout else ''}{f' log={log}' if log else ''}"
            f"{f' failed={failed}' if failed else ''}{_told('choice', choice) if choice else ''}"
            f"{f' cpu_seconds={cpu_seconds}' if cpu_seconds else ''}"
            f"{f' peak_memory={peak_memory}' if peak_memory else ''}{shown}\n"
        )

    def _json_of_other(self, values: Sequence[Any], group: RecordedEvents) -> str:
        is_usual = values[0] == SUCCEEDED and len(values) == _SIZES[SUCCEEDED]
        if is_usual and not values[_ITEMS_AT] and not values[-1] and is_whole(values[_MANIFEST_AT]):
            try:
                return self._json_of_success(values, group)
            except RecordError:
                pass  # the event says whose manifest it is
        return self._of_event(event_of(values, group.flow, group.run_id, group.resolve))

    def _json_of_start(self, values: Sequence[Any], group: RecordedEvents) -> str:
        _, seq, time, step, task, attempt, path, pid, parents, node, item = values
        return (
            f'{{"type": "TaskStarted", {self._run_of(group)}, "seq": {seq}, '
            f'"time": "{self._at(time)}", "step": {in_json(step)}, "task_id": "{task}", '
            f'"attempt": {attempt}, "path": {path}, "pid": {pid}, "parents": {parents}, '
            f'"node": {in_json(node)}, "item": {in_json(item)}}}\n'
        )

    def _json_of_success(self, values: Sequence[Any], group: RecordedEvents) -> str:
        _, seq, time, step, task, attempt, path, manifest, seconds, pid, fanout, *more = values
        _, log, failed, choice, cpu_seconds, peak_memory, _ = more
        refs = _kept_refs if len(manifest) <= _KEPT_BYTES else _refs
        return (
            f'{{"type": "TaskSucceeded", {self._run_of(group)}, "seq": {seq}, '
            f'"time": "{self._at(time)}", "step": {in_json(step)}, "task_id": "{task}", '
            f'"attempt": {attempt}, "path": {path}, "artifacts": {refs(manifest)}, '
            f'"seconds": {seconds}, "pid": {pid}, "fanout": {_null(fanout)}, "items": null, '
            f'"log": {log}, "failed": {failed}, "choice": {in_json(choice)}, '
            f'"cpu_seconds": {_null(cpu_seconds)}, "peak_memory": {_null(peak_memory)}, '
            f'"cards": {{}}}}\n'
        )

    # --- all else ---

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


def _names(manifest: bytes) -> str:
    """The names of all artifacts of a whole manifest, as they are shown.

    Raises:
        RecordError: It is damaged.
    """
    return _told("artifacts", list(unpack_told(manifest).refs))


def _refs(manifest: bytes) -> str:
    """All artifacts of a whole manifest, as JSON.

    Raises:
        RecordError: It is damaged.
    """
    told = [f"{in_json(name)}: {_ref(ref)}" for name, ref in unpack_manifest(manifest).items()]
    return f"{{{', '.join(told)}}}"


def _ref(ref: ArtifactRef) -> str:
    place, encoding, type_name, size, digest, file, offset, data = ref
    return (
        f'{{"place": {place:d}, "encoding": {encoding:d}, "type_name": {in_json(type_name)}, '
        f'"size": {size}, "digest": "{digest.hex()}", "file": {in_json(file)}, '
        f'"offset": {offset}, "data": "{data.hex()}"}}'
    )


_kept_names: Final = lru_cache(maxsize=256)(_names)
_kept_refs: Final = lru_cache(maxsize=256)(_refs)


def _plain_lines(data: bytes) -> list[str] | None:
    """The lines of output if all have a line end and can be shown as they are; else None."""
    if data[-1:] != b"\n" or len(data) > PIECE_BYTES or data.translate(None, _PLAIN):
        return None
    return data[:-1].decode().split("\n")


def _null(value: float | None) -> str:
    return "null" if value is None else repr(value)


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
