"""Manifests that say what differs from an earlier one: resolving gives what was passed on."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncflow.errors import RecordError
from asyncflow.events.manifests import (
    is_whole,
    pack_changes,
    pack_manifest,
    unpack_manifest,
    unpack_told,
)
from asyncflow.events.packing import pack_event, unpack_events
from asyncflow.events.types import TaskFailed, TaskSucceeded, from_microseconds
from asyncflow.store.frames import PREFIX_BYTES
from asyncflow.store.manifests import (
    FEW_NAMES,
    MOST_BASES,
    ChangingManifest,
    JournalManifests,
    RecordedManifest,
    is_base,
    packed,
)
from asyncflow.values import ArtifactRef, Encoding, Place

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

FILE = "17/journal"


def ref(number: int, size: int = 4) -> ArtifactRef:
    """An inline value; a long one is passed on as a part of the journal."""
    data = number.to_bytes(4, "little") * (size // 4)
    return ArtifactRef(int(Place.INLINE), int(Encoding.BYTES), "bytes", size, b"", "", 0, data)


class Journal:
    """Records at offsets, in memory, and how often they were read."""

    def __init__(self) -> None:
        self.records: dict[int, bytes] = {}
        self.size = 20
        self.reads = 0
        self.manifests = JournalManifests(self.read, FILE)

    def read(self, offset: int) -> bytes:
        self.reads += 1
        try:
            return self.records[offset]
        except KeyError:
            raise RecordError(f"there is no record at {offset}") from None

    def add(self, manifest: bytes, cls: type[TaskSucceeded | TaskFailed] = TaskSucceeded) -> int:
        """Add the record of a task; return its offset."""
        at = self.size
        about: dict[str, Any] = {
            "flow": "F",
            "run_id": "17",
            "seq": at,
            "time": from_microseconds(1),
        }
        event = cls(**about, step="s", task_id="1", attempt=0, manifest=manifest)
        self.records[at] = pack_event(event)
        self.size += PREFIX_BYTES + len(self.records[at])
        return at

    def task(self, before: int | None, new: Mapping[str, ArtifactRef], gone: set[str]) -> int:
        """Add a task that has changed something of what the one before passes on."""
        if before is None:
            return self.add(pack_manifest(new))
        inherited = self.manifests.at(before)
        refs = {**inherited} if inherited.is_small else ChangingManifest(inherited)
        for name in gone & refs.keys():
            del refs[name]
        refs.update(new)
        return self.add(packed(refs))

    def value(self, one: ArtifactRef) -> bytes:
        """The bytes that a ref names."""
        if one.place == Place.INLINE:
            return one.data
        assert one.file == FILE
        for at, record in self.records.items():
            start = one.offset - at - PREFIX_BYTES
            if 0 <= start < len(record):
                return record[start : start + one.size]
        raise AssertionError(one)

    def values(self, offset: int) -> dict[str, bytes]:
        """What the task at that offset passes on, read by a reader that knows nothing yet."""
        fresh = JournalManifests(self.read, FILE)
        found = {name: self.value(one) for name, one in fresh.at(offset).items()}
        manifest = self.manifest(offset)
        assert {n: self.value(one) for n, one in fresh.resolved(manifest).items()} == found
        assert {n: self.value(one) for n, one in fresh.said_again(manifest).items()} == found
        return found

    def manifest(self, offset: int) -> bytes:
        [event] = unpack_events(self.records[offset], "F", "17")
        assert isinstance(event, TaskSucceeded)
        return event.manifest


names = st.integers(0, 60).map("n{}".format)
changes = st.tuples(
    st.integers(0, 1 << 30),  # which earlier task it follows
    st.dictionaries(names, st.tuples(st.integers(0, 5), st.sampled_from([4, 200])), max_size=40),
    st.sets(names, max_size=20),
)


@given(st.lists(changes, max_size=25))
def test_what_a_task_passes_on_is_what_it_inherits_and_has_changed(tasks):
    """Whatever tasks set and delete, and whichever task each follows, readers find just that."""
    journal = Journal()
    places: list[int] = []
    models: list[dict[str, bytes]] = []
    for before, told, gone in tasks:
        new = {name: ref(*each) for name, each in told.items()}
        parent = before % len(places) if places else None
        model = {} if parent is None else dict(models[parent])
        for name in gone:
            model.pop(name, None)
        model |= {name: one.data for name, one in new.items()}
        places.append(journal.task(None if parent is None else places[parent], new, gone))
        models.append(model)
    for place, model in zip(places, models, strict=True):
        assert journal.values(place) == model
        found = journal.manifests.at(place)
        assert len(found) == len(model)
        assert {*found} == {*model}
        assert all(name in found for name in model)
        assert found.depth <= MOST_BASES


@given(st.lists(st.tuples(names, st.booleans()), max_size=80))
def test_a_changing_manifest_is_a_mapping_as_any_other(steps):
    """Length, names and values are those of a dict that is changed in the same way."""
    journal = Journal()
    start = {f"n{number}": ref(number) for number in range(30)}
    inherited = journal.manifests.at(journal.add(pack_manifest(start)))
    changing, model = ChangingManifest(inherited), dict(start)
    for number, (name, keeps) in enumerate(steps):
        if keeps:
            changing[name] = model[name] = ref(number)
        else:
            assert changing.pop(name, None) == model.pop(name, None)
        assert len(changing) == len(model)
    assert dict(changing) == model
    with pytest.raises(KeyError):
        del changing["unknown"]


@pytest.mark.parametrize("size", [100, 1_000])
def test_a_task_costs_what_it_changes_however_many_it_inherits(size):
    """Tasks that change one name each write no more if they pass ten times as many on."""
    journal = Journal()
    at = journal.task(None, {f"n{number}": ref(number) for number in range(size)}, set())
    begin, turns = journal.size, 200
    for turn in range(turns):
        at = journal.task(at, {"turn": ref(turn)}, set())
    assert (journal.size - begin) / turns < 80  # bytes
    assert journal.manifests.at(at).depth == 1  # what is set again and again is said once
    journal.reads = 0
    assert len(journal.values(at)) == size + 1
    assert journal.reads <= 3 * 2


def test_bases_are_few_if_each_task_makes_something_new():
    """Each base says twice as much, so there are as many as the logarithm of what was made."""
    journal = Journal()
    at = journal.task(None, {f"n{number}": ref(number) for number in range(4_000)}, set())
    begin, turns = journal.size, 1_000
    for turn in range(turns):
        at = journal.task(at, {f"made{turn}": ref(turn)}, set())
    assert journal.manifests.at(at).depth <= math.log2(4_000)
    one = len(pack_manifest({"made100": ref(1)}))
    assert (journal.size - begin) / turns < 60 + one * math.log2(4_000)


def test_few_names_are_said_again():
    """Below sixteen names a manifest says everything, so that one record is enough to read it."""
    journal = Journal()
    few = {f"n{number}": ref(number) for number in range(FEW_NAMES - 1)}
    at = journal.task(None, few, set())
    assert not is_base(journal.manifest(at))
    assert unpack_manifest(journal.manifest(journal.task(at, {}, set()))) == few
    many = journal.task(None, {**few, "one more": ref(1)}, set())
    assert is_base(journal.manifest(many))
    assert unpack_told(journal.manifest(journal.task(many, {}, set()))) == (many, {}, frozenset())


def test_a_manifest_that_changes_most_says_everything():
    """Where a change would be as long as half of its base, it does not name the base."""
    journal = Journal()
    at = journal.task(None, {f"n{number}": ref(number) for number in range(30)}, set())
    after = journal.task(at, {f"n{number}": ref(99) for number in range(15)}, set())
    assert is_whole(journal.manifest(after))
    after = journal.task(at, {}, {f"n{number}" for number in range(20)})
    assert len(unpack_manifest(journal.manifest(after))) == 10


def test_what_is_set_to_what_it_was_is_no_change():
    """So a task that stores the same again says nothing."""
    journal = Journal()
    at = journal.task(None, {f"n{number}": ref(number) for number in range(20)}, set())
    changing = ChangingManifest(journal.manifests.at(at))
    changing["n3"] = ref(3)
    assert changing.packed() == pack_changes(at, {}, ())


# --- what somebody else may have written --------------------------------------------------------


@pytest.mark.parametrize(
    "raw",
    [
        *([], [20], [20, {}], [20, {}, [], []], [0, {}, []], [-1, {}, []], [True, {}, []]),
        *([1 << 63, {}, []], [20, [], []], [20, {}, {}], [20, {1: []}, []], [20, {}, [1]]),
        *([20, {}, [[]]], [20, {"x": []}, ["x"]], ["20", {}, []], None, 7, "x"),
    ],
)
def test_what_is_neither_a_map_nor_a_change_is_refused(raw):
    """Whatever it is instead, it is an error of the record."""
    with pytest.raises(RecordError, match="neither a map"):
        unpack_told(msgpack.packb(raw))


def test_a_change_alone_is_not_taken_for_everything():
    """A reader without the journal says so, instead of finding less than there is."""
    with pytest.raises(RecordError, match="only what differs from that of the record at byte 20"):
        unpack_manifest(pack_changes(20, {}, ()))


def test_circles_are_refused():
    """A base has to come before what builds on it, so no chain of bases returns."""
    journal = Journal()
    at = journal.add(pack_changes(journal.size, {}, ()))
    with pytest.raises(RecordError, match="does not come before"):
        journal.manifests.at(at)
    first = journal.add(pack_changes(500, {}, ()))
    journal.size = 500
    journal.add(pack_changes(first, {}, ()))
    for offset in (first, 500):
        with pytest.raises(RecordError, match="does not come before"):
            journal.manifests.at(offset)
    with pytest.raises(RecordError, match="does not come before"):
        journal.manifests.check(first, journal.records[first], journal.manifest(first))


def test_a_missing_base_and_one_that_passes_nothing_on_are_refused():
    """A base is the record of a result."""
    journal = Journal()
    failed = journal.add(b"\x80", TaskFailed)
    for base, why in ((21, "no record at 21"), (failed, "passes nothing on")):
        at = journal.add(pack_changes(base, {}, ()))
        with pytest.raises(RecordError, match=why):
            journal.manifests.at(at)
        with pytest.raises(RecordError, match=why):
            journal.manifests.resolved(journal.manifest(at))


def test_a_chain_that_nobody_would_write_is_given_up_soon():
    """However long a chain of bases is, a few records of it are read."""
    journal = Journal()
    at = journal.add(pack_manifest({"x": ref(1)}))
    for _ in range(10_000):
        at = journal.add(pack_changes(at, {}, ()))
    with pytest.raises(RecordError, match=f"more than {MOST_BASES} times"):
        journal.manifests.at(at)
    assert journal.reads <= MOST_BASES + 1


def test_a_ref_that_is_none_is_refused_when_it_is_asked_for():
    """The others can be read."""
    journal = Journal()
    wrong = {**{f"n{number}": ref(number) for number in range(20)}, "bad": ["x"]}
    at = journal.add(msgpack.packb(wrong))
    found = journal.manifests.at(journal.add(pack_changes(at, {}, ())))
    assert found["n1"] == ref(1)
    with pytest.raises(RecordError, match=f"record at byte {at} of {FILE} names no value 'bad'"):
        _ = found["bad"]


def test_it_explains_itself():
    """For whoever debugs."""
    journal = Journal()
    at = journal.add(pack_manifest({"x": ref(1)}))
    found = journal.manifests.at(at)
    assert repr(found) == f"<RecordedManifest at {at}: 1 names of 1>"
    assert isinstance(found, RecordedManifest)
    assert repr(journal.manifests) == f"<JournalManifests of {FILE}: 1 known>"
    assert repr(ChangingManifest(found)) == "<ChangingManifest: 0 differ, 0 gone>"


@given(
    st.dictionaries(names, st.tuples(st.integers(0, 5), st.sampled_from([4, 200])), min_size=1),
    st.lists(changes, min_size=2, max_size=2),
)
def test_a_manifest_says_what_differs_from_one_that_changes_the_same(first, both):
    """Moved to a journal that has the other one, and not their base, it says the same."""
    journal, other = Journal(), Journal()
    base = journal.task(None, {name: ref(*each) for name, each in first.items()}, set())
    manifests = []
    for _, told, gone in both:
        new = {name: ref(*each) for name, each in told.items()}
        lost = (gone & first.keys()) - new.keys()
        manifests.append(pack_changes(base, new, lost))
    told, sibling = map(unpack_told, manifests)
    wanted = journal.manifests.said_again(manifests[0])
    at = other.add(pack_manifest(journal.manifests.said_again(manifests[1])))
    moved = journal.manifests.from_sibling(told, sibling, at)
    assert other.manifests.resolved(moved) == wanted
    assert unpack_told(moved).size <= told.size + sibling.size


class Interrupted(dict[str, Any]):
    """Refs during whose first look-up another thread gets its turn."""

    def __init__(self, refs: Mapping[str, Any]) -> None:
        super().__init__(refs)
        self.turns: list[Callable[[], object]] = []

    def __getitem__(self, name: str) -> Any:
        if self.turns:
            self.turns.pop()()
        return super().__getitem__(name)


def test_a_thread_finds_a_ref_while_another_asks_for_all():
    """Whoever has all refs drops the record, in which the other one looks for a long value."""
    journal = Journal()
    at = journal.task(None, {"long": ref(1, 200), "short": ref(2)}, set())
    told = unpack_told(journal.manifest(at))
    refs = Interrupted(told.refs)
    found = RecordedManifest(at, journal.records[at], FILE, told._replace(refs=refs), None)
    refs.turns.append(found.whole)
    assert found["long"] == journal.manifests.at(at)["long"]


class Searched(bytes):
    """A record that counts how many of its bytes were searched for values."""

    searched = 0

    def find(self, *arguments: Any) -> int:
        found = super().find(*arguments)
        self.searched += (found if found >= 0 else len(self)) - arguments[1]
        return found

    def index(self, *arguments: Any) -> int:
        found = super().index(*arguments)
        self.searched += found
        return found


def test_all_long_values_are_found_in_one_search_of_the_record():
    """Not in one from the record's begin for each of them, which takes seconds for 20,000."""
    journal = Journal()
    at = journal.task(None, {f"n{number}": ref(number, 200) for number in range(1000)}, set())
    record = Searched(journal.records[at])
    found = RecordedManifest(at, record, FILE, unpack_told(journal.manifest(at)), None)
    assert {name: journal.value(one) for name, one in found.whole().items()} == {
        f"n{number}": ref(number, 200).data for number in range(1000)
    }
    assert 0 < record.searched <= len(record)
