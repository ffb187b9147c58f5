"""Which pieces of a run's journal a node needs with an order, and has not got yet.

An order names records of the journal by their offsets. With each record go the values in this
journal that it refers to: a longer inline value is passed on as a ref into the journal. So whatever
a worker reads of the journal is on its node.

Everything here reads the journal, so it belongs into a thread that may wait for the disk.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import OrderedDict
from itertools import chain, filterfalse, islice
from operator import sub
from typing import TYPE_CHECKING, Final

from asyncflow.errors import RecordError
from asyncflow.events.manifests import (
    changes_in,
    is_whole,
    ref_of,
    unpack,
    unpack_ref,
    unpack_told,
)
from asyncflow.events.records import MAX_TASK, manifest_in, unpack_result
from asyncflow.store import open_store
from asyncflow.store.frames import PREFIX_BYTES
from asyncflow.store.journal import FIRST_RECORD
from asyncflow.store.manifests import MOST_BASES
from asyncflow.workers.messages import MoreInputs, StartItems, StartTask
from asyncflow.workers.packed_numbers import unpack_numbers

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from asyncflow.events.manifests import Told
    from asyncflow.values import Outcome
    from asyncflow.workers.messages import Opening, OrderMessage

_KNOWN_PARTS: Final = 1 << 14  # remembered for a node and run: some 2 MB
_PIECE_BYTES: Final = 1 << 17  # the longest piece of which more than one part is made
_GAP_BYTES: Final = 512  # between two parts: these bytes cost less than a piece more
_NEAR_BYTES: Final = 1024  # from the begin of a record to the next one that goes with it
_FEW_RECORDS: Final = 8  # near each other: fewer are read one by one
_READ_RECORDS: Final = 128  # one by one, before others get a turn: half a millisecond
_ARRIVAL_NUMBERS: Final = 3  # of `MoreInputs`: the last is no offset

Part = tuple[int, int]
"""A record, or a value, within a journal: its offset, and its size in bytes."""


class RunRecords:
    """The journal of one run, as its driver reads it."""

    def __init__(self, opening: Opening) -> None:
        """Open it.

        Raises:
            StoreError: It cannot be opened.
            OSError: Likewise.
        """
        store = open_store(opening.store, known=True, cache=opening.cache)
        self.pathspec: Final = f"{opening.flow}/{opening.run_id}"
        self._stored = store.run(opening.flow, opening.run_id)
        self._journal = self._stored.open_journal()
        self._file = self._stored.journal_file
        self._file_bytes = self._file.encode()

    def inputs_file(self, name: str) -> bytes:
        """The offsets of the inputs of a wide join, as its file has them.

        Raises:
            OSError: It cannot be read.
        """
        return self._stored.read_file(name, most=MAX_TASK * 8)

    def parts_at(
        self, offsets: Sequence[int], known: Collection[int]
    ) -> Iterator[Collection[Part]]:
        """The `parts` of the records at these offsets, which ascend.

        After each that it yields, others should have a turn: it took half a millisecond at most.
        Records that lie near each other are one part, with what is between them: nothing is done
        for each of them, as long as it names no other part.

        Raises:
            JournalError: As in `parts`. A record that is damaged may be found by its reader only.
        """
        for near in _near(offsets):
            alone: Sequence[int] = near
            if len(near) >= _FEW_RECORDS:
                begin, last = near[0], near[-1]
                parts = self.parts(last, 0, known)
                yield [*parts, (begin, last + parts[0][1] - begin)]
                alone = self._naming_others(near, self._journal.read_bytes(last - begin, begin))
            for at in range(0, len(alone), _READ_RECORDS):
                some = alone[at : at + _READ_RECORDS]
                yield [part for each in some for part in self.parts(each, near[-1], known)]

    def _naming_others(self, near: Sequence[int], data: bytes) -> list[int]:
        """Those of records near each other that may name other parts; `data` has all but the last.

        What is found between two records counts as the first one's.
        """
        places = changes_in(data)
        at = data.find(self._file_bytes)
        while at >= 0:
            places.append(at)
            at = data.find(self._file_bytes, at + 1)
        begin = near[0]
        return sorted({near[bisect_right(near, begin + at) - 1] for at in places})

    def parts(self, offset: int, final: int, known: Collection[int]) -> list[Part]:
        """The record at an offset, those that its manifest changes, and values that they name.

        The values are those in this journal. What lies at an offset that is known is left out.
        `final` is as in `RecordReader.read_one`.

        Raises:
            JournalError: There is no such record.
        """
        parts: list[Part] = []
        for _ in range(MOST_BASES + 1):
            record = self._journal.read_one(offset, final)
            parts.append((offset, PREFIX_BYTES + len(record)))
            names_values = self._file_bytes in record  # hardly any record does
            if not names_values and is_whole(manifest_in(unpack(record))):
                break  # nearly always: a wide join comes here for each of its inputs
            try:
                outcome = unpack_result(record).outcome
                told = unpack_told(outcome.manifest)
            except RecordError:  # it passes nothing on, whatever else it says
                break
            if names_values:
                parts += self._values_of(told, outcome, known)
            if not 0 < told.base < offset or told.base in known:
                break
            offset, final = told.base, 0
        return parts

    def _values_of(self, told: Told, outcome: Outcome, known: Collection[int]) -> Iterator[Part]:
        refs = [ref_of(raw) for raw in told.refs.values()]
        if outcome.items:
            refs.append(unpack_ref(outcome.items))
        for ref in refs:
            if ref.file == self._file and ref.offset not in known:
                yield ref.offset, ref.size

    def pieces(self, parts: Iterable[Part]) -> Iterator[tuple[int, bytes]]:
        """The bytes of these parts, each with its offset.

        Parts that lie close together are in one piece, with what is between them: a piece more
        costs both sides more than some bytes.

        Raises:
            JournalError: The journal ends before.
        """
        for begin, end in _joined(parts):
            yield begin, self._journal.read_bytes(end - begin, begin)

    def close(self) -> None:
        """Close the journal."""
        self._journal.close()

    def __repr__(self) -> str:
        return f"<RunRecords of {self.pathspec}>"


def _joined(parts: Iterable[Part]) -> Iterator[tuple[int, int]]:
    """Where the pieces that these parts are sent in begin and end."""
    begin = end = 0
    for offset, size in sorted(parts):
        if offset > end + _GAP_BYTES or offset + size > max(end, begin + _PIECE_BYTES):
            if end:
                yield begin, end
            begin = offset
        begin, end = begin or offset, max(end, offset + size)
    if end:
        yield begin, end


def _near(offsets: Sequence[int]) -> Iterator[Sequence[int]]:
    """The offsets, together as far as they lie near each other and belong into one piece."""
    steps = map(sub, islice(offsets, 1, None), offsets)
    begin = 0
    for end in (*(at for at, step in enumerate(steps, 1) if step > _NEAR_BYTES), len(offsets)):
        while begin < end:
            upto = bisect_left(offsets, offsets[begin] + _PIECE_BYTES, begin, end)
            yield offsets[begin:upto]
            begin = upto


class KnownParts:
    """The parts of one run's journal that one node has, by their offsets."""

    def __init__(self) -> None:
        self.offsets: OrderedDict[int, None] = OrderedDict()
        """Where they lie; those that were asked for last are the last."""

    def missing(self, offsets: Sequence[int]) -> list[int]:
        """Those of the offsets at which nothing is known, in order, each once."""
        missing = sorted(set(filterfalse(self.offsets.__contains__, offsets)))
        if len(missing) < len(offsets):
            for offset in filter(self.offsets.__contains__, offsets):
                self.offsets.move_to_end(offset)
        return missing

    def add(self, offsets: Iterable[int]) -> None:
        """Count what lies at these offsets as known."""
        self.offsets.update(dict.fromkeys(offsets))
        while len(self.offsets) > _KNOWN_PARTS:
            self.offsets.popitem(last=False)  # it may be sent again

    def __repr__(self) -> str:
        return f"<KnownParts: {len(self.offsets)}>"


def offsets_in(order: OrderMessage, inputs: bytes = b"") -> list[int]:
    """The offsets of the records that a worker reads to carry an order out.

    `inputs` is the file of a wide join's inputs.
    """
    # At less than the first record's, the task before has not ended yet.
    return [offset for offset in _offsets_in(order, inputs) if offset >= FIRST_RECORD]


def _offsets_in(order: OrderMessage, inputs: bytes) -> Iterable[int]:
    match order:
        case StartTask():
            numbers = unpack_numbers(inputs or order.inputs)
            if order.awaits:
                return chain((FIRST_RECORD,), order.stack, _of_arrivals(numbers))
            return chain((FIRST_RECORD,), order.stack, numbers)
        case StartItems():
            return chain((FIRST_RECORD,), order.stack, unpack_numbers(order.inputs))
        case MoreInputs():
            return _of_arrivals(unpack_numbers(order.inputs))
        case _:
            return ()


def _of_arrivals(numbers: Iterable[int]) -> Iterator[int]:
    """The offsets among the numbers of inputs that have arrived: their index is none."""
    for at, number in enumerate(numbers):
        if at % _ARRIVAL_NUMBERS != _ARRIVAL_NUMBERS - 1:
            yield number
