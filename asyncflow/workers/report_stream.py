"""Turns the bytes that a worker sends into its reports.

Most reports of a wide run say that a task has begun, and right after that, that it has succeeded.
Such pairs stay together, as the fields that were unpacked: an object for each report takes longer
than all that is done with it. Whoever looks at each report finds them as objects.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import repeat
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final, overload

import msgpack

from asyncflow._quick_classes import NamedTuple
from asyncflow.workers.messages import Report, Started, Succeeded, report_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncflow.workers.messages import ReportMessage

_PAIRS: Final = re.compile(b"(?:%c%c)+" % (Report.STARTED, Report.SUCCEEDED))
_STARTED: Final = int(Report.STARTED)
_KEY_AT, _SECONDS_AT, _SPOOLED_AT = 1, 2, 4
_kind_of: Final = itemgetter(0)
_key_of: Final = itemgetter(_KEY_AT)


class WholeAttempts(NamedTuple):
    """Attempts that have begun and succeeded, one after the other, and have printed nothing."""

    begun: Sequence[Sequence[Any]]
    """The fields of each `Started`, its kind first."""
    ended: Sequence[Sequence[Any]]
    """The fields of the `Succeeded` of each."""

    @property
    def keys(self) -> list[Any]:
        """The `AttemptKey` of each, as a plain tuple."""
        return [fields[_KEY_AT] for fields in self.begun]

    @property
    def spooled(self) -> Sequence[int]:
        """As in the `Succeeded` of each."""
        spooled: Sequence[int] = self.ended[0][_SPOOLED_AT]
        return spooled

    @property
    def seconds(self) -> list[float]:
        """How long each took."""
        return [fields[_SECONDS_AT] for fields in self.ended]

    def reports(self) -> list[Started | Succeeded]:
        """Both reports of each, in order."""
        reports: list[Any] = [None] * (2 * len(self.begun))
        reports[::2], reports[1::2] = map(report_of, self.begun), map(report_of, self.ended)
        return reports

    def slice(self, begin: int, end: int) -> WholeAttempts:
        """Some of them."""
        return WholeAttempts(self.begun[begin:end], self.ended[begin:end])


def unpacked_fields(packed: bytes) -> list[Sequence[Any]]:
    """The fields of each of some reports that were packed one after the other."""
    unpacker = msgpack.Unpacker(max_buffer_size=0, use_list=False)
    unpacker.feed(packed)
    return [*unpacker]


def whole_attempts(items: Sequence[str], ended: Sequence[Sequence[Any]]) -> WholeAttempts:
    """Attempts with these items, and with the fields of the `Succeeded` of each."""
    begun = zip(repeat(_STARTED), map(_key_of, ended), items, strict=False)
    return WholeAttempts([*begun], ended)


class Reports(Sequence["ReportMessage"]):
    """Reports of a worker: a sequence of all, whose usual pairs are made when somebody looks."""

    __slots__ = ("_all", "parts")

    def __init__(self, parts: Sequence[ReportMessage | WholeAttempts]) -> None:
        self.parts = parts
        """The reports, in order; those that came in pairs are together."""
        self._all: list[ReportMessage] | None = None

    def _alone(self) -> list[ReportMessage]:
        if self._all is None:
            self._all = []
            for part in self.parts:
                self._all += part.reports() if isinstance(part, WholeAttempts) else (part,)
        return self._all

    @overload
    def __getitem__(self, index: int) -> ReportMessage: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[ReportMessage]: ...
    def __getitem__(self, index: int | slice) -> ReportMessage | Sequence[ReportMessage]:
        return self._alone()[index]

    def __len__(self) -> int:
        return len(self._alone())

    def __iter__(self) -> Iterator[ReportMessage]:
        return iter(self._alone())

    def __repr__(self) -> str:
        return f"<Reports {[type(part).__name__ for part in self.parts]}>"


class ReportStream:
    """Turns a stream of bytes into reports, wherever the stream is cut."""

    def __init__(self) -> None:
        self._unpacker = msgpack.Unpacker(max_buffer_size=0, use_list=False)

    def feed(self, data: bytes) -> list[ReportMessage]:
        """The reports that are complete with these bytes."""
        self._unpacker.feed(data)
        return [*map(report_of, self._unpacker)]

    def feed_together(self, data: bytes) -> list[ReportMessage | WholeAttempts]:
        """The same, with those together that begin attempts and end them well."""
        self._unpacker.feed(data)
        messages = [*self._unpacker]
        kinds, at = bytes(map(_kind_of, messages)), 0
        reports: list[ReportMessage | WholeAttempts] = []
        for found in _PAIRS.finditer(kinds):
            begin, end = found.span()
            reports += map(report_of, messages[at:begin])
            whole = WholeAttempts(messages[begin:end:2], messages[begin + 1 : end : 2])
            reports += (whole,) if _are_whole(whole) else map(report_of, messages[begin:end])
            at = end
        reports += map(report_of, messages[at:])
        return reports


def _are_whole(pairs: WholeAttempts) -> bool:
    """Whether each end is that of the attempt before it, and nothing was printed between them."""
    spooled = [fields[_SPOOLED_AT] for fields in pairs.ended]
    return spooled.count(spooled[0]) == len(spooled) and [*map(_key_of, pairs.begun)] == [
        *map(_key_of, pairs.ended)
    ]
