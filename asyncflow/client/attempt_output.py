r"""The output of an attempt, read from the journal record by record, without reading the run's.

The event that ends an attempt has the offset of its last output, and each record of output has the
offset of the one before. Bytes that are not UTF-8 show as `\xNN`.
"""

from __future__ import annotations

from array import array
from codecs import getincrementaldecoder
from dataclasses import dataclass
from typing import TYPE_CHECKING

from asyncflow.errors import JournalError
from asyncflow.events.records import STREAMS
from asyncflow.events.types import from_microseconds

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from asyncflow.client.run_files import RunRecord
    from asyncflow.events.output_records import LoggedOutput


@dataclass(frozen=True, slots=True)
class AttemptOutput:
    """What one attempt printed; `stream` is `stdout` or `stderr`."""

    record: RunRecord
    task: int
    attempt: int
    last: int
    """The journal offset of its last output; 0 if there is none."""

    def text(self, stream: str) -> str:
        """All that it printed to a stream."""
        return "".join(self.pieces(stream))

    def pieces(self, stream: str) -> Iterator[str]:
        """The same in pieces of at most some hundred kilobytes."""
        decoder = getincrementaldecoder("utf-8")("backslashreplace")
        for chunk in self._chunks(stream):
            yield decoder.decode(chunk.data)
        if rest := decoder.decode(b"", final=True):
            yield rest

    def raw(self, stream: str) -> Iterator[bytes]:
        """The same as raw bytes, exactly as printed."""
        return (chunk.data for chunk in self._chunks(stream))

    def size(self, stream: str) -> int:
        """How many bytes it printed to a stream."""
        return sum(map(len, self.raw(stream)))

    def tail(self, stream: str, lines: int) -> str:
        """The last lines; what was printed before them is not read."""
        pieces: list[bytes] = []
        wanted, ends = _number_of(stream), 0
        for _, chunk in self._backwards():
            if ends > lines:
                break
            if chunk.stream == wanted:
                pieces.append(chunk.data)
                ends += chunk.data.count(b"\n")
        *whole, rest = b"".join(reversed(pieces)).split(b"\n")
        found = [line + b"\n" for line in whole] + [rest] * bool(rest)
        return b"".join(found[max(len(found) - lines, 0) :]).decode("utf-8", "backslashreplace")

    def lines(self, stream: str) -> Iterator[tuple[datetime, bytes]]:
        """Line by line, without line ends, each with the time at which it was complete."""
        rest: list[bytes] = []
        time = 0
        for chunk in self._chunks(stream):
            time = chunk.time
            *lines, last_line = chunk.data.split(b"\n")
            for line in lines:
                yield from_microseconds(time), b"".join([*rest, line]).removesuffix(b"\r")
                rest = []
            rest.append(last_line)
        if any(rest):
            yield from_microseconds(time), b"".join(rest)

    def _chunks(self, stream: str) -> Iterator[LoggedOutput]:
        wanted, offsets = _number_of(stream), array("Q")
        for at, output in self._backwards():
            if output.stream == wanted:
                offsets.append(at)
        for at in reversed(offsets):
            yield self.record.journal.output(at, self.task)

    def _backwards(self) -> Iterator[tuple[int, LoggedOutput]]:
        """The records of the output, each with its offset; the last one first."""
        at = self.last
        while at:
            output = self.record.journal.output(at, self.task)
            if output.task != self.task or output.previous >= at:
                message = (
                    f"the journal of {self.record.pathspec} cannot be read: "
                    f"the record at byte {at} is not output of task {self.task}"
                )
                raise JournalError(message)
            if output.attempt != self.attempt:
                return
            yield at, output
            at = output.previous


def _number_of(stream: str) -> int:
    if stream not in STREAMS:
        message = f"the stream is {' or '.join(STREAMS)}, not {stream!r}"
        raise ValueError(message)
    return STREAMS.index(stream)
