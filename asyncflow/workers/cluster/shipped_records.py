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
from asyncflow.events.manifests import ref_of, unpack_ref, unpack_told
from asyncflow.events.records import MAX_TASK, unpack_result
from asyncflow.store import open_store
from asyncflow.store.journal import FIRST_RECORD, frame
from asyncflow.store.manifests import MOST_BASES
from asyncflow.workers.messages import MoreInputs, StartItems, StartTask, unpack_numbers

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from asyncflow.events.manifests import Told
    from asyncflow.values import Outcome
    from asyncflow.workers.messages import Opening, OrderMessage

_KNOWN_PIECES: Final = 1 << 14  # remembered for a node and run: some 2 MB
_ARRIVAL_NUMBERS: Final = 3  # of `MoreInputs`: the last is no offset

Piece = tuple[int, bytes]
"""Bytes of a journal, and their offset."""


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
        self._values = store.value_source(opening.flow)

    def inputs_file(self, name: str) -> bytes:
        """The offsets of the inputs of a wide join, as its file has them.

        Raises:
            OSError: It cannot be read.
        """
        return self._stored.read_file(name, most=MAX_TASK * 8)

    def pieces(self, offset: int) -> Iterator[Piece]:
        """The record at an offset, those that its manifest changes, and values that they name.

        The values are those in this journal.

        Raises:
            JournalError: There is no such record.
        """
        for _ in range(MOST_BASES + 1):
            record = self._journal.read_one(offset)
            yield offset, frame(record)
            try:
                outcome = unpack_result(record).outcome
                told = unpack_told(outcome.manifest)
            except RecordError:  # it passes nothing on, whatever else it says
                return
            if self._file_bytes in record:  # hardly any record does; refs take far longer
                yield from self._values_of(told, outcome)
            if not 0 < told.base < offset:
                return
            offset = told.base

    def _values_of(self, told: Told, outcome: Outcome) -> Iterator[Piece]:
        refs = [ref_of(raw) for raw in told.refs.values()]
        if outcome.items:
            refs.append(unpack_ref(outcome.items))
        for ref in refs:
            if ref.file == self._file:
                yield ref.offset, bytes(self._values.read(ref, 0, ref.size))

    def close(self) -> None:
        """Close the journal."""
        self._journal.close()

    def __repr__(self) -> str:
        return f"<RunRecords of {self.pathspec}>"


class KnownPieces:
    """The pieces of one run's journal that one node has."""

    def __init__(self) -> None:
        self._offsets: OrderedDict[int, None] = OrderedDict()

    def add(self, offset: int) -> bool:
        """Count a piece as known; return whether it was not."""
        if offset in self._offsets:
            self._offsets.move_to_end(offset)
            return False
        self._offsets[offset] = None
        if len(self._offsets) > _KNOWN_PIECES:
            self._offsets.popitem(last=False)  # it may be sent again
        return True

    def __repr__(self) -> str:
        return f"<KnownPieces: {len(self._offsets)}>"


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
