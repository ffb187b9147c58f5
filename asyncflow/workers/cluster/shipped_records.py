"""Which pieces of a run's journal a node needs with an order, and has not got yet.

An order names records of the journal by their offsets. With each record go the values in this
journal that it refers to: a longer inline value is passed on as a ref into the journal. So whatever
a worker reads of the journal is on its node.

Everything here reads the journal, so it belongs into a thread that may wait for the disk.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import chain
from typing import TYPE_CHECKING, Final

from asyncflow.errors import RecordError
from asyncflow.events.manifests import is_whole, ref_of, unpack, unpack_ref, unpack_told
from asyncflow.events.records import MAX_TASK, manifest_in, unpack_result
from asyncflow.store import open_store
from asyncflow.store.frames import PREFIX_BYTES
from asyncflow.store.journal import FIRST_RECORD
from asyncflow.store.manifests import MOST_BASES
from asyncflow.workers.messages import MoreInputs, StartItems, StartTask
from asyncflow.workers.packed_numbers import unpack_numbers

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from asyncflow.events.manifests import Told
    from asyncflow.values import Outcome
    from asyncflow.workers.messages import Opening, OrderMessage

_KNOWN_PARTS: Final = 1 << 14  # remembered for a node and run: some 2 MB
_PIECE_BYTES: Final = 1 << 17  # the longest piece of which more than one part is made
_GAP_BYTES: Final = 512  # between two parts: these bytes cost less than a piece more
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


class KnownParts:
    """The parts of one run's journal that one node has, by their offsets."""

    def __init__(self) -> None:
        self.offsets: OrderedDict[int, None] = OrderedDict()
        """Where they lie; those that were asked for last are the last."""

    def missing(self, offsets: Iterable[int]) -> list[int]:
        """Those of the offsets at which nothing is known, from the first of the journal on."""
        missing = set()
        for offset in offsets:
            if offset in self.offsets:
                self.offsets.move_to_end(offset)
            else:
                missing.add(offset)
        return sorted(missing)

    def add(self, parts: Iterable[Part]) -> None:
        """Count parts as known."""
        self.offsets.update(dict.fromkeys(offset for offset, _ in parts))
        while len(self.offsets) > _KNOWN_PARTS:
            self.offsets.popitem(last=False)  # it may be sent again

    def __repr__(self) -> str:
        return f"<KnownParts: {len(self.offsets)}>"


def offsets_in(order: OrderMessage, inputs: bytes = b"") -> Iterator[int]:
    """The offsets of the records that a worker reads to carry an order out.

    `inputs` is the file of a wide join's inputs.
    """
    for offset in _offsets_in(order, inputs):
        if offset >= FIRST_RECORD:  # otherwise the task before has not ended yet
            yield offset


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
