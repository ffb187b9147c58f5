"""Which pieces of a journal go to a node: what an order needs, in few pieces, and each once."""

from __future__ import annotations

import pytest

from asyncflow import Engine, FlowSpec, step
from asyncflow.errors import JournalError
from asyncflow.events.records import SUCCEEDED, fields_of
from asyncflow.store.frames import PREFIX_BYTES
from asyncflow.store.journal import JournalReader
from asyncflow.workers.cluster.shipped_records import KnownParts, RunRecords
from asyncflow.workers.messages import Opening

WIDTH = 300


class Wide(FlowSpec):
    """A join has many inputs."""

    @step
    def start(self):
        self.items = list(range(WIDTH))
        self.next(self.work, foreach="items")

    @step
    def work(self):
        self.each = self.input
        self.next(self.join)

    @step
    def join(self, inputs):
        self.total = sum(each.each for each in inputs)
        self.next(self.end)

    @step
    def end(self):
        pass


@pytest.fixture(scope="module")
async def run(tmp_path_factory):
    """A run that has ended."""
    store = tmp_path_factory.mktemp("store")
    async with Engine(store=store, workers=2) as engine:
        yield await engine.run(Wide), store


@pytest.fixture
def journal(run):
    """The bytes of its journal, and the offsets of the records of `work`."""
    done, store = run
    path = store / "flows" / done.pathspec / "journal"
    with JournalReader(path) as reader:
        offsets = [
            at
            for at, record, _ in reader.read_from()
            if (values := fields_of(record))[0] == SUCCEEDED and values[3] == "work"
        ]
    assert len(offsets) == WIDTH
    return path.read_bytes(), offsets


@pytest.fixture
def records(run):
    """The journal as a driver reads it."""
    done, store = run
    opened = RunRecords(Opening(1, str(store), "Wide", done.id, ()))
    yield opened
    opened.close()


def parts_at(records, offsets):
    """What the driver sends for these records, if nothing is known there."""
    return [part for at in offsets for part in records.parts(at, offsets[-1], ())]


async def test_the_inputs_of_a_wide_join_go_in_few_pieces(records, journal):
    """Each with the bytes of the journal at its place, so that every record is whole there."""
    data, offsets = journal
    pieces = list(records.pieces(parts_at(records, offsets)))
    assert len(pieces) < WIDTH / 10
    replica = bytearray(len(data))
    for at, piece in pieces:
        replica[at : at + len(piece)] = piece
    for at in offsets:
        end = at + PREFIX_BYTES + int.from_bytes(data[at : at + 4], "little")
        assert replica[at:end] == data[at:end]


async def test_what_lies_far_apart_goes_alone(records, journal):
    """The bytes between would cost more than a piece."""
    data, offsets = journal
    few = [offsets[0], offsets[-1]]
    pieces = list(records.pieces(parts_at(records, few)))
    assert [at for at, _ in pieces] == few
    assert sum(len(piece) for _, piece in pieces) < len(data) / 10


async def test_a_part_behind_the_end_is_an_error(records, journal):
    """Nothing is sent in its place."""
    with pytest.raises(JournalError, match="has no 100 bytes"):
        list(records.pieces([(len(journal[0]), 100)]))


def test_what_was_sent_is_not_sent_again():
    """Until then it is missing: reading it may have failed."""
    known = KnownParts()
    assert known.missing([30, 10, 20, 10]) == [10, 20, 30]
    assert known.missing([30, 10]) == [10, 30]
    known.add([(10, 5), (30, 5)])
    assert known.missing([30, 10, 20]) == [20]
