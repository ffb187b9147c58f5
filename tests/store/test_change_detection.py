"""What counts as a change: whatever an object does when it is pickled, read and looked at."""

from __future__ import annotations

import datetime as dt
import functools
import threading
from collections import OrderedDict, defaultdict, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest

from asyncflow import codec
from asyncflow.errors import ArtifactPickleError
from asyncflow.store import change_detection, mapped_files
from asyncflow.store.artifacts import BLOB_BYTES, ArtifactWriter
from asyncflow.store.layout import Layout
from asyncflow.values import Encoding, Place
from tests.support.kept_objects import Account, Settings
from tests.support.store_files import reader_of, writer_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from asyncflow.store.change_detection import Loaded

LARGE = BLOB_BYTES // 8 + 1000  # so many numbers make a blob


@pytest.fixture
def layout(store: Path) -> Layout:
    """The layout of this test's store."""
    return Layout.open(store, create=True)


@pytest.fixture
def writer(layout: Layout) -> Iterator[ArtifactWriter]:
    """Stores the values of a run."""
    with writer_of(layout, "Flow", layout.create_run("Flow"), "w1") as writer:
        yield writer


@pytest.fixture
def read(layout: Layout, writer: ArtifactWriter) -> Callable[[Any], Loaded]:
    """Store a value, and read it as a step gets it."""

    def store_and_read(value: Any) -> Loaded:
        loaded = reader_of(layout, "Flow").load(writer.put(value))
        loaded.note()
        return loaded

    return store_and_read


@pytest.fixture
def stored(layout: Layout, writer: ArtifactWriter) -> Callable[[Loaded], Any]:
    """What the next step reads of a value that has changed."""

    def store_and_read(loaded: Loaded) -> Any:
        encoded = loaded.changed()
        assert encoded is not None
        return reader_of(layout, "Flow").load(writer.put_encoded(encoded)).value

    return store_and_read


# --- objects of a process -----------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _fresh_objects() -> None:
    """Each test begins as a process does."""
    Account.known.clear()
    Settings.one = None


def test_a_change_of_an_object_that_the_process_keeps_is_stored(read):
    """Reading the old bytes again would give the very object back, changed."""
    loaded = read([Account.get("bob", 100)])
    assert loaded.changed() is None
    loaded.value[0].balance = 50
    encoded = loaded.changed()
    Account.known.clear()
    assert encoded is not None
    assert b"bob" in b"".join(encoded.chunks)
    assert loaded.value[0].balance == 50


def test_an_object_that_an_earlier_task_has_changed_is_as_this_step_found_it(read):
    """Only what the step itself has changed counts, also if that is back to what was stored."""
    bob = Account.get("bob", 100)
    first = read(bob)
    bob.balance = 50  # as a task does that has this worker before
    second = read(bob)
    assert second.changed() is None
    bob.balance = 100
    assert second.changed() is not None
    assert first.changed() is None


def test_looking_for_changes_leaves_a_singleton_as_the_step_left_it(read, stored):
    """Two artifacts that refer to it are stored with the same state."""
    settings = Settings()
    settings.level = 1
    loaded = read(settings)
    settings.level = 2
    assert stored(loaded).level == 2
    assert settings.level == 2


# --- objects with ways of their own ---------------------------------------------------------------


class Counting:
    """Counts how often it was pickled and read, and tells of it in what is stored."""

    def __init__(self) -> None:
        self.pickled = self.read = 0

    def __getstate__(self) -> dict[str, int]:
        self.pickled += 1
        return vars(self).copy()

    def __setstate__(self, state: dict[str, int]) -> None:
        vars(self).update(state)
        self.read += 1


class Cleaning:
    """Throws its cache away when it is pickled."""

    def __init__(self) -> None:
        self.numbers = [1, 2, 3]
        self.cache: dict[str, int] = {}

    def __getstate__(self) -> dict[str, Any]:
        self.cache.clear()
        return {"numbers": self.numbers, "cache": {}}


class Connected:
    """Opens something when it is read, that is not stored."""

    def __init__(self, url: str) -> None:
        self.url, self.lock = url, threading.Lock()

    def __getstate__(self) -> dict[str, str]:
        return {"url": self.url}

    def __setstate__(self, state: dict[str, str]) -> None:
        vars(self).update(state, lock=threading.Lock())


class Renewing:
    """Adds what is new in its class when it is read, as classes do that have grown."""

    def __init__(self) -> None:
        self.weights = np.zeros(LARGE)

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, version=2)
        self.weights[0] = 1.0  # in place, in the mapped file


class Slotted:
    """Has no dictionary."""

    __slots__ = ("x", "y")

    def __init__(self) -> None:
        self.x, self.y = 1, [2]


class Model:
    """Keeps its fields as pydantic's models do: state in several parts, and which were set."""

    def __init__(self, **values: Any) -> None:
        self.fields, self.fields_set = values, set(values)

    def __getstate__(self) -> dict[str, Any]:
        return {"__dict__": self.fields, "__pydantic_fields_set__": self.fields_set}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.fields, self.fields_set = state["__dict__"], state["__pydantic_fields_set__"]


@dataclass
class Node:
    """Refers to others, and to itself."""

    name: str
    children: list[Node] = field(default_factory=list)

    @functools.cached_property
    def size(self) -> int:
        return 1 + len(self.children)


def _ring() -> Node:
    root = Node("root", [Node("leaf")])
    root.children.append(root)
    return root


def _shared() -> list[Any]:
    text, equal = (b"not interned".decode() for _ in range(2))
    return [text, text, equal, {equal: text}, Node("name", []), ()]


def _series() -> pd.Series[float]:
    return pd.Series(np.arange(50.0), index=pd.date_range("2026-01-01", periods=50, freq="h"))


def _frame(rows: int) -> pd.DataFrame:
    index = pd.date_range("2026-01-01", periods=rows, freq="min", tz="UTC")
    kind = pd.Categorical(["a", "b"] * (rows // 2))
    return pd.DataFrame({"x": np.arange(float(rows)), "kind": kind, "text": "é"}, index=index)


# sklearn is imported where it is used: every test process collects this file, and few run it.


def _model() -> Any:
    from sklearn.linear_model import LinearRegression

    return LinearRegression()


def _pipeline() -> Any:
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), _model())


def _forest() -> Any:
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(20, random_state=1)


def _fitted(model: Any) -> Any:
    features = np.random.default_rng(1).random((300, 4))
    return model.fit(features, features[:, 0] > 0.5)


def _predict(model: Any) -> object:
    return model.predict(np.zeros((3, 4)))


def _set_depth(model: Any) -> None:
    model.set_params(max_depth=3)


KINDS: dict[str, tuple[Callable[[], Any], Callable[[Any], object], Callable[[Any], object]]] = {
    # what it is, looking at it, changing it
    "a set": (lambda: {f"{n}" for n in range(300)}, lambda v: "7" in v, lambda v: v.add("new")),
    "a large set": (
        lambda: {f"text {n} {'x' * 80}" for n in range(70_000)},
        len,
        lambda v: v.discard("text 7 " + "x" * 80),
    ),
    "sets of sets": (
        lambda: {"k": [{frozenset("ab"), frozenset("cd")}, set()]},
        str,
        lambda v: v["k"][1].add(1),
    ),
    "a dict": (
        lambda: {"a": 1, "b": 2},
        lambda v: v["a"],
        lambda v: v.update(a=v.pop("a")),  # in another order
    ),
    "an ordered dict": (
        lambda: OrderedDict(a=1, b=2),
        list,
        lambda v: v.move_to_end("a"),
    ),
    "a dict that makes what is asked for": (
        lambda: defaultdict(list, a=[1]),
        lambda v: v.get("b"),
        lambda v: v["b"],
    ),
    "a deque": (lambda: deque([1, 2], maxlen=5), len, lambda v: v.rotate(1)),
    "equal and shared texts": (_shared, str, lambda v: v[3].update(more=1)),
    "objects that refer to themselves": (
        _ring,
        lambda v: v.children[1].name,
        lambda v: v.children[1].children.pop(),
    ),
    "a value worked out when it is first asked for": (
        lambda: Node("root"),
        lambda v: v.name,
        lambda v: v.size,  # it is kept in the object, and stored with it
    ),
    "slots": (Slotted, lambda v: v.x, lambda v: v.y.append(3)),
    "state in parts": (
        lambda: Model(a=1, b=[2]),
        lambda v: v.fields["a"],
        lambda v: v.fields_set.discard("b"),
    ),
    "what is opened when it is read": (
        lambda: Connected("db://"),
        lambda v: v.lock.locked(),
        lambda v: setattr(v, "url", "db://other"),
    ),
    "a cache that is not stored": (
        Cleaning,
        lambda v: v.cache.update(sum=sum(v.numbers)),
        lambda v: v.numbers.append(4),
    ),
    "an array that is written to when it is read": (
        Renewing,
        lambda v: v.weights.sum(),
        lambda v: (
            v.weights.itemset(5, 1.0)
            if hasattr(v.weights, "itemset")
            else v.weights.__setitem__(5, 1.0)
        ),
    ),
    "a function": (
        lambda: {"f": lambda x: x + 1},
        lambda v: v["f"](1),
        lambda v: v.update(f=lambda x: x + 2),
    ),
    "a series by the hour": (
        _series,
        lambda v: (v.index.freq, v.loc["2026-01-01 05:00"], v.resample("D").sum()),
        lambda v: v.__setitem__(v.index[3], -1.0),
    ),
    "a frame with dates": (
        lambda: _frame(100),
        lambda v: (v.loc["2026-01-01"], v.groupby("kind", observed=True)["x"].sum(), v.describe()),
        lambda v: v.iloc.__setitem__((0, 0), -1.0),
    ),
    "a large frame with dates": (
        lambda: _frame(LARGE),
        lambda v: (v.index.is_monotonic_increasing, v["x"].mean(), v.head()),
        lambda v: v.pop("text"),
    ),
    "an array in a set's company": (
        lambda: {"names": {f"{n}" for n in range(300)}, "x": np.zeros(LARGE)},
        lambda v: v["x"].sum(),
        lambda v: v["x"].__setitem__(LARGE - 1, 1.0),
    ),
    "two arrays in one place each": (
        lambda: [np.zeros(LARGE), np.zeros(LARGE)],
        lambda v: v[0] + v[1],
        lambda v: v.reverse(),
    ),
    "a model": (lambda: _fitted(_model()), _predict, lambda v: v.coef_.fill(0.0)),
    "a pipeline": (
        lambda: _fitted(_pipeline()),
        _predict,
        lambda v: v.steps.pop(0),
    ),
    "a forest": (
        lambda: _fitted(_forest()),
        _predict,
        _set_depth,
    ),
    "dates and zones": (
        lambda: [dt.datetime(2026, 1, 1, tzinfo=dt.UTC), dt.timezone(dt.timedelta(hours=1))],
        str,
        lambda v: v.append(dt.date(2026, 1, 1)),
    ),
}


@pytest.mark.parametrize(("make", "look", "_change"), KINDS.values(), ids=KINDS.keys())
def test_what_was_only_looked_at_is_unchanged(read, make, look, _change):
    """However often it is read, and of whatever kind and size it is."""
    for _ in range(2):
        loaded = read(make())
        look(loaded.value)
        assert loaded.changed() is None


@pytest.mark.parametrize(("make", "look", "change"), KINDS.values(), ids=KINDS.keys())
def test_what_was_changed_is_stored_as_it_was_left(read, stored, make, look, change):
    """What comes back is unchanged from there on."""
    loaded = read(make())
    look(loaded.value)
    change(loaded.value)
    again = stored(loaded)
    assert read(again).changed() is None
    assert type(again) is type(loaded.value)


def test_an_object_that_changes_as_it_is_pickled_is_stored_anew(read, stored):
    """It encodes otherwise each time, so nobody can say that it is what it was."""
    loaded = read(Counting())
    assert stored(loaded).pickled > 1


class Zone(dt.tzinfo):
    """A time zone that can be moved."""

    hours = 1

    def utcoffset(self, _moment: dt.datetime | None) -> dt.timedelta:
        return dt.timedelta(hours=self.hours)

    def dst(self, _moment: dt.datetime | None) -> None:
        return None

    def tzname(self, _moment: dt.datetime | None) -> str:
        return f"+{self.hours}"

    def __reduce__(self) -> tuple[Any, ...]:
        return Zone, (), vars(self)


@pytest.mark.parametrize(
    "moment", [dt.datetime(2026, 1, 1, tzinfo=Zone()), dt.time(12, tzinfo=Zone())]
)
def test_a_change_of_the_time_zone_of_a_moment_is_stored(read, stored, moment):
    """A moment cannot be changed, but a time zone that is no standard one can."""
    loaded = read((moment, 1))
    assert loaded.changed() is None
    loaded.value[0].tzinfo.hours = 5
    assert stored(loaded)[0].tzinfo.hours == 5
    assert not codec.are_small([moment])


@pytest.mark.parametrize("zone", [None, dt.UTC, ZoneInfo("Europe/Berlin")], ids=str)
def test_a_moment_of_a_standard_time_zone_cannot_be_changed(zone):
    """So nothing of it is encoded to find a change."""
    moment = dt.datetime(2026, 1, 1, tzinfo=zone)
    assert change_detection.is_immutable(moment)
    assert codec.are_small([moment, moment.timetz()])


class Telling:
    """Tells that it is read."""

    reads: ClassVar[list[str]] = []

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.reads.append("read")
        vars(self).update(state)


def test_nothing_is_unpickled_to_find_a_change(read):
    """What reading does to the process happens once, when the step asks for the value."""
    Telling.reads.clear()
    value = Telling()
    value.names = {"a", "b"}  # type: ignore[attr-defined] # it has no such member yet
    loaded = read(value)
    assert loaded.changed() is None
    loaded.value.names.add("c")
    assert loaded.changed() is not None
    assert Telling.reads == ["read"]


class Locked:
    """Is a lock once it is read."""

    def __reduce__(self) -> tuple[Any, ...]:
        return threading.Lock, ()


def test_what_is_read_and_cannot_be_pickled_is_told_at_the_end(read, stored):
    """Reading it works, and it is known that it could not be; put right, it is stored."""
    loaded = read([Locked()])
    with pytest.raises(ArtifactPickleError, match="lock"):
        loaded.changed()
    assert not loaded.is_comparable
    assert read([1]).is_comparable
    assert read(1).is_comparable
    loaded.value[0] = "nothing locked"
    assert stored(loaded) == ["nothing locked"]


@pytest.mark.parametrize(
    ("value", "times"),
    [
        ({"rows": [[number, f"row {number}"] for number in range(500)]}, 1),
        ([Slotted() for _ in range(500)], 3),  # might be objects of the process
    ],
    ids=["plain", "objects"],
)
def test_a_plain_value_is_encoded_once_however_often_it_is_read(read, monkeypatch, value, times):
    """Reading it calls nothing, so it always encodes to what was stored; a change is noticed."""
    encoded = []

    def counted(value, **options):
        encoded.append(1)
        return codec.encode(value, **options)

    monkeypatch.setattr(change_detection, "encode", counted)
    monkeypatch.setattr(change_detection, "_steady", set())
    for _ in range(3):
        loaded = read(value)
    assert len(encoded) == times
    assert loaded.changed() is None
    loaded.value.clear()
    assert loaded.changed() is not None


def test_a_list_of_a_foreach_is_compared_as_it_is(layout, writer):
    """Also one of large arrays, which are not read for it."""
    for items in ([{"a", "b"}, 1], [np.zeros(LARGE), np.ones(LARGE)]):
        _, ref = writer.put_items(items)
        assert ref.encoding == Encoding.ITEMS
        loaded = reader_of(layout, "Flow").load(ref)
        loaded.note()
        assert loaded.changed() is None
        loaded.value[-1] = "another"
        assert loaded.changed() is not None


@pytest.mark.skipif(not mapped_files._can_tell(), reason="this system does not tell about pages")
def test_an_array_among_items_that_is_written_to_is_a_change(layout, writer):
    """The kernel tells, as of one by itself."""
    _, ref = writer.put_items([np.zeros(LARGE), np.ones(LARGE)])
    assert ref.place == Place.BLOB
    loaded = reader_of(layout, "Flow").load(ref)
    loaded.note()
    loaded.value[1][LARGE - 1] = 7.0
    assert loaded.changed() is not None
