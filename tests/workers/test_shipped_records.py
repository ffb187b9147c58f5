"""Which pieces of a journal go to a node: what an order needs, in few pieces, and each once."""

from __future__ import annotations

from itertools import chain

import pytest

from asyncflow import Engine, FlowSpec, step
from asyncflow.errors import JournalError
from asyncflow.events.records import SUCCEEDED, fields_of
from asyncflow.store.journal import JournalReader
from asyncflow.workers.cluster.shipped_records import KnownParts, RunRecords
from asyncflow.workers.messages import Opening

WIDTH = 300
TEXT = 500  # too long to be told again by each task that passes it on
NAMES = 100  # of artifacts: a task that passes them on tells what differs


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


class WithText(Wide):
    """Some of the inputs pass on a text that is elsewhere in the journal."""

    @step
    def start(self):
        self.items = list(range(WIDTH))
        self.text = "t" * TEXT
        self.next(self.work, foreach="items")

    @step
    def work(self):
        if self.input % 50:
            del self.text
        self.each = self.input
        self.next(self.join)


class WithNames(Wide):
    """Some of the inputs tell only what differs from a record elsewhere in the journal."""

    @step
    def start(self):
        self.items = list(range(WIDTH))
        for number in range(NAMES):
            setattr(self, f"made_{number}", number)
        self.next(self.work, foreach="items")

    @step
    def work(self):
        if self.input % 50:
            for name in ("items", *(f"made_{number}" for number in range(NAMES))):
                delattr(self, name)
        self.each = self.input
        self.next(self.join)


@pytest.fixture(scope="module", params=[Wide, WithText, WithNames])
async def run(request, tmp_path_factory):
    """A run that has ended."""
    store = tmp_path_factory.mktemp("store")
    async with Engine(store=store, workers=2) as engine:
        yield await engine.run(request.param), store


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
    flow, run_id = done.pathspec.split("/")
    opened = RunRecords(Opening(1, str(store), flow, run_id, ()))
    yield opened
    opened.close()


def parts_one_by_one(records, offsets):
    """What the driver sends for these records, if nothing is known there."""
    return [part for at in offsets for part in records.parts(at, offsets[-1], ())]


def replica_of(records, parts, size):
    """What a node has once it has these parts: zeros elsewhere."""
    replica = bytearray(size)
    for at, piece in records.pieces(parts):
        replica[at : at + len(piece)] = piece
    return replica


async def test_the_inputs_of_a_wide_join_go_in_few_pieces(records, journal):
    """Each with the bytes of the journal at its place, so that every record is whole there.

    So is what the records name elsewhere in the journal.
    """
    data, offsets = journal
    parts = {*chain.from_iterable(records.parts_at(offsets, ()))}
    assert len([*records.pieces(parts)]) < WIDTH / 10
    replica = replica_of(records, parts, len(data))
    for at, size in parts_one_by_one(records, offsets):
        assert replica[at : at + size] == data[at : at + size]


async def test_records_near_each_other_are_not_looked_at_one_by_one(records, journal, monkeypatch):
    """Only those that may name something elsewhere: that took a fifth of the time of a task."""
    _, offsets = journal
    looked: list[int] = []
    parts_of = records.parts

    def looking(at, *more):
        looked.append(at)
        return parts_of(at, *more)

    monkeypatch.setattr(records, "parts", looking)
    alone = sum(len(parts_of(at, 0, ())) > 1 for at in offsets)
    assert [*chain.from_iterable(records.parts_at(offsets, ()))]
    assert alone <= len(looked) < alone + WIDTH / 20


async def test_what_lies_far_apart_goes_alone(records, journal):
    """The bytes between would cost more than a piece."""
    data, offsets = journal
    few = [offsets[0], offsets[-1]]
    parts = chain.from_iterable(records.parts_at(few, [*range(len(data))]))
    pieces = list(records.pieces(parts))
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
    known.add([10, 30])
    assert known.missing([30, 10, 20]) == [20]
