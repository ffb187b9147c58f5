"""The events of records as the JSON that a page is sent; nearly all without making an event.

`event_data` says what that JSON holds. For a task that has begun or succeeded in the usual way, the
text is put together from the fields of the record: that takes a seventh of the time.
"""

from __future__ import annotations

from functools import lru_cache
from json.encoder import encode_basestring
from typing import TYPE_CHECKING, Any, Final

from asyncflow.errors import AsyncflowError
from asyncflow.events.manifests import is_whole, unpack_manifest
from asyncflow.events.records import FIELDS, HEAD_FIELDS, STARTED, SUCCEEDED
from asyncflow.events.types import from_microseconds
from asyncflow.page.answers import encoded, to_bytes
from asyncflow.page.event_list import LONG, MOST_NAMES, names_in

if TYPE_CHECKING:
    from collections.abc import Sequence

_STARTED_FIELDS: Final = HEAD_FIELDS + len(FIELDS[STARTED])
_SUCCEEDED_FIELDS: Final = HEAD_FIELDS + len(FIELDS[SUCCEEDED])
_KEPT_BYTES: Final = 1024  # manifests up to this length are kept: those of many tasks are the same


class EventTexts:
    """Makes the texts of one run's events, whose records have been checked."""

    def __init__(self, started: int) -> None:
        """`started` is when the run has started, in microseconds since 1970."""
        self.started = started
        self._time, self._moment = -1, ""

    def of(self, values: Sequence[Any]) -> bytes | None:
        """The JSON of the one event of a record with these fields; None if it is unusual."""
        code = values[0]
        if code == STARTED and len(values) == _STARTED_FIELDS:
            return self._begun(values)
        if code == SUCCEEDED and len(values) == _SUCCEEDED_FIELDS:
            return self._succeeded(values)
        return None

    def _begun(self, values: Sequence[Any]) -> bytes | None:
        _, seq, time, step, task, attempt, path, pid, parents, node, item = values
        if max(map(len, (step, node, item))) > LONG or max(len(path), len(parents)) > MOST_NAMES:
            return None
        text = (
            f'{{"type":"TaskStarted","seq":{seq},{self._at(time)},"step":{encode_basestring(step)},'
            f'"task_id":"{task}","attempt":{attempt},"path":{_list(path)},"pid":{pid},'
            f'"parents":{_list(parents)},"node":{encode_basestring(node)},'
            f'"item":{encode_basestring(item)}}}'
        )
        return encoded(text)

    def _succeeded(self, values: Sequence[Any]) -> bytes | None:
        _, seq, time, step, task, attempt, path, manifest, seconds, pid, fanout, *more = values
        _, log, failed, choice, cpu_seconds, peak_memory, _ = more
        if max(len(step), len(choice)) > LONG or len(path) > MOST_NAMES or not is_whole(manifest):
            return None
        names = _kept_names if len(manifest) <= _KEPT_BYTES else _names
        text = (
            f'{{"type":"TaskSucceeded","seq":{seq},{self._at(time)},'
            f'"step":{encode_basestring(step)},"task_id":"{task}","attempt":{attempt},'
            f'"path":{_list(path)},"seconds":{seconds!r},"pid":{pid},"fanout":{_null(fanout)},'
            f'"log":{log},"failed":{failed},"choice":{encode_basestring(choice)},'
            f'"cpu_seconds":{_null(cpu_seconds)},"peak_memory":{_null(peak_memory)},'
            f'"artifacts":{names(manifest)}}}'
        )
        return encoded(text)

    def _at(self, time: int) -> str:
        """When an event was; many records have the same time."""
        if time != self._time:
            at = (time - self.started) // 1000
            self._moment = f'"time":"{from_microseconds(time).isoformat()}","at":{at}'
            self._time = time
        return self._moment


def _list(numbers: Sequence[int]) -> str:
    return f"[{','.join(map(str, numbers))}]"


def _null(value: float | None) -> str:
    return "null" if value is None else repr(value)


def _names(manifest: bytes) -> str:
    """The names of a whole manifest's artifacts, as JSON."""
    try:
        return to_bytes(names_in(unpack_manifest(manifest))).decode()
    except AsyncflowError:
        return "[]"


_kept_names: Final = lru_cache(maxsize=256)(_names)
