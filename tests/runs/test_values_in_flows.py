"""Values on their way through a flow: made in one step, read in the next, changed in a third."""

from __future__ import annotations

import sys
import textwrap
import threading
from dataclasses import dataclass, field
from typing import Any

import anyio
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from asyncflow import Engine, FlowSpec, Parameter, isolate, step
from asyncflow.errors import RunFailedError
from asyncflow.store.layout import Layout
from asyncflow.store.maintenance.verify import verify
from tests.support.kept_objects import Account, Settings
from tests.support.patient_process import run_patiently


@dataclass
class Node:
    """A class of the flow's file, that refers to others of its kind."""

    name: str
    children: list[Node] = field(default_factory=list)
    weights: np.ndarray = field(default_factory=lambda: np.zeros(3))


class Values(FlowSpec):
    """Makes one of everything, looks at it, and changes it in place."""

    @step
    def start(self):
        factor = 3
        self.array = np.arange(200_000.0)
        self.small = np.arange(6).reshape(2, 3)
        self.column_major = np.asfortranarray(np.arange(12.0).reshape(3, 4))
        self.objects = np.array([{"a": 1}, None, "x"], dtype=object)
        self.masked = np.ma.array([1, 2, 3], mask=[False, True, False])
        self.dates = np.array(["2026-01-01", "NaT"], dtype="datetime64[s]")
        self.frame = pd.DataFrame({"n": range(1000), "text": ["é"] * 1000, "x": 0.5})
        self.categories = pd.DataFrame({"c": pd.Categorical(["a", "b", "a"])})
        self.series = pd.Series([1.0, None], index=pd.date_range("2026-01-01", periods=2))
        self.polars = pl.DataFrame({"n": [1, 2, None], "l": [[1], [], [2, 3]]})
        self.table = pa.table({"n": [1, 2, 3], "s": ["a", None, "c"]})
        self.nested: Any = {"layers": [{"w": np.ones((50, 50)), "b": np.zeros(5)}], "name": "net"}
        self.function = lambda x: x * factor
        self.tree = Node("root", [Node("leaf")])
        self.log = ["start"]
        self.alias = self.log
        self.untouched = np.arange(100_000)
        self.next(self.read)

    @step
    def read(self):
        self.sums = [
            float(self.array.sum()),
            int(self.small.sum()),
            int(self.frame["n"].sum()),
            int(self.polars["n"].sum()),
            self.table.num_rows,
            float(self.nested["layers"][0]["w"].sum()),
            self.function(5),
            self.tree.children[0].name,
        ]
        self.next(self.change)

    @step
    def change(self):
        self.array[-1] = -1.0
        self.small[0, 0] = 100
        self.column_major *= 2
        self.objects[0]["a"] = 2
        self.frame.loc[0, "n"] = -1
        self.frame["new"] = 1
        self.categories.loc[0, "c"] = "b"
        self.series.iloc[0] = 9.0
        self.nested["layers"][0]["w"][3, 3] = 0.0
        self.tree.children[0].children.append(Node("new"))
        self.tree.weights[1] = 1.0
        self.log.append("change")
        self.next(self.end)

    @step
    def end(self):
        pass


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The run, once for all tests of this file."""

    async def once():
        async with Engine(store=tmp_path_factory.mktemp("store"), workers=2) as engine:
            return await engine.run(Values)

    return anyio.run(once)


def test_every_kind_of_value_is_read_by_the_next_step(run):
    """Arrays, frames, tables, functions and the file's own classes."""
    total = float(np.arange(200_000.0).sum())
    assert run.data.sums == [total, 15, 499_500, 3, 3, 2500.0, 15, "leaf"]


def test_every_kind_of_value_is_read_back(run):
    """By a program, with its type, shape and order."""
    made = run["start"].task.data
    assert np.array_equal(made.array, np.arange(200_000.0))
    assert made.column_major.flags.f_contiguous
    assert made.objects.tolist() == [{"a": 1}, None, "x"]
    assert made.masked.tolist() == [1, None, 3]
    assert np.isnat(made.dates[1])
    assert (made.frame.shape, made.frame["text"][999]) == ((1000, 3), "é")
    assert made.categories["c"].dtype == "category"
    assert made.series.index[1] == pd.Timestamp("2026-01-02")
    assert made.polars.equals(pl.DataFrame({"n": [1, 2, None], "l": [[1], [], [2, 3]]}))
    assert made.table.equals(pa.table({"n": [1, 2, 3], "s": ["a", None, "c"]}))
    assert made.function(2) == 6
    assert type(made.tree) is Node


def test_what_was_changed_in_place_is_noticed(run):
    """An element, a column, something nested deep: the next step and the reader have the change."""
    data = run.data
    assert (data.array[-1], data.small[0, 0], data.column_major[2, 3]) == (-1.0, 100, 22.0)
    assert data.objects[0] == {"a": 2}
    assert (data.frame.loc[0, "n"], list(data.frame)) == (-1, ["n", "text", "x", "new"])
    assert list(data.categories["c"]) == ["b", "b", "a"]
    assert data.series.iloc[0] == 9.0
    assert data.nested["layers"][0]["w"][3, 3] == 0.0
    assert data.tree.children[0].children[0].name == "new"
    assert data.tree.weights[1] == 1.0
    assert data.log == ["start", "change"]


def test_what_it_was_before_the_change_is_still_there(run):
    """The steps before keep their version."""
    before = run["read"].task.data
    assert (before.array[-1], before.small[0, 0]) == (199_999.0, 0)
    assert (before.objects[0], before.log) == ({"a": 1}, ["start"])
    assert list(before.frame) == ["n", "text", "x"]
    assert before.nested["layers"][0]["w"][3, 3] == 1.0
    assert not before.tree.children[0].children


@pytest.mark.parametrize(
    "name", ["array", "frame", "polars", "table", "nested", "function", "tree", "log", "untouched"]
)
def test_what_was_only_read_is_not_stored_again(run, name):
    """The step that read it hands on the very ref that it got."""
    assert run["start"].task[name].sha == run["read"].task[name].sha


def test_what_nobody_touched_is_handed_on_to_the_end(run):
    """Its ref is the same in every step."""
    assert len({run[name].task["untouched"].sha for name in ("start", "change", "end")}) == 1


# --- what counts as a change ----------------------------------------------------------------------


class Kept(FlowSpec):
    """Changes objects of a process in place, in one branch, and looks at them in the other."""

    @step
    def start(self):
        self.account = Account.get("bob", 100)
        self.settings = Settings()
        self.settings.level = 1
        self.numbers = [1]
        self.words = {f"word {number} {'x' * 40}" for number in range(100_000)}
        self.next(self.change, self.look)

    @step
    def change(self):
        self.account.balance -= 50
        self.settings.level += 1
        self.both = {"account": self.account, "settings": self.settings}
        self.numbers.append(2)
        self.alias = self.numbers
        self.alias.append(3)
        self.next(self.join)

    @step
    def look(self):
        self.seen = len(self.words), list(self.numbers)
        self.next(self.join)

    @step
    def join(self, inputs):
        self.lists = inputs.change.numbers, inputs.change.alias
        self.merge_artifacts(inputs, include=["words", "seen"])
        self.next(self.end)

    @step
    def end(self):
        pass


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A run of it, with all tasks in one worker."""

    async def once():
        async with Engine(store=tmp_path_factory.mktemp("kept"), workers=1) as engine:
            return await engine.run(Kept)

    return anyio.run(once)


def test_changed_objects_of_a_process_are_stored_as_the_step_left_them(kept):
    """One that is kept for its key, and one of which there is one, in each artifact that has it."""
    changed = kept["change"].task

    def read(name: str) -> Any:
        Account.known.clear()  # as in a process that has read nothing yet
        Settings.one = None
        return changed[name].data

    assert (read("account").balance, read("settings").level) == (50, 2)
    both = read("both")
    assert (both["account"].balance, both["settings"].level) == (50, 2)


def test_a_change_reaches_each_artifact_that_refers_to_the_object(kept):
    """Two names for one list are two artifacts with the same items."""
    assert kept.data.lists == ([1, 2, 3], [1, 2, 3])


def test_a_large_set_that_a_branch_has_read_is_merged(kept):
    """Nobody has changed it, though it comes in another order when it is pickled again."""
    assert kept.data.seen == (100_000, [1])
    assert len(kept.data.words) == 100_000
    assert kept["look"].task["words"].sha == kept["start"].task["words"].sha


class Locks:
    """Becomes a lock when it is read, and that cannot be pickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return threading.Lock, ()


class ReadsLocks(FlowSpec):
    """Looks at locks, replaces one, and makes one where there was none."""

    bad = Parameter("bad", default=False)

    @step
    def start(self):
        self.read: list[Any] = [Locks()]
        self.replaced: list[Any] = [Locks()]
        self.spoiled: list[Any] = ["no lock"]
        self.next(self.look)

    @step
    def look(self):
        self.kind = type(self.read[0]).__name__
        self.replaced[0] = "no lock"
        if self.bad:
            self.spoiled[0] = threading.Lock()
        self.next(self.end)

    @step
    def end(self):
        self.kinds = [type(each[0]).__name__ for each in (self.read, self.replaced, self.spoiled)]


async def test_what_could_not_be_pickled_when_it_was_read_is_handed_on_as_it_was(store):
    """The log says so; what the step has made picklable is stored as it is then."""
    async with Engine(store=store, workers=1) as engine:
        run = await engine.run(ReadsLocks)
        assert run.data.kinds == ["lock", "str", "str"]
        log = run["look"].task.stderr
        assert log.startswith("Passed on as it was read, even if it has changed: artifact 'read'")
        assert "replaced" not in log
        with pytest.raises(RunFailedError, match="'spoiled'"):
            await engine.run(ReadsLocks, bad=True)


class Rated:
    """Has what a step changes in the class and in its objects."""

    rate = 1


class ChangesClass(FlowSpec):
    """Changes a class, an object and a lambda, which are artifacts, each task in a process."""

    @isolate
    @step
    def start(self):
        Rated.rate = 2
        self.cls, self.object = Rated, Rated()
        self.function = lambda: None
        vars(self.function)["rate"] = 1
        self.next(self.change)

    @isolate
    @step
    def change(self):
        self.cls.rate = self.object.rate = 3
        vars(self.function)["rate"] = 3
        self.next(self.end)

    @isolate
    @step
    def end(self):
        self.rates = self.cls.rate, self.object.rate, vars(self.function)["rate"]


async def test_what_a_step_sets_in_a_class_of_the_flows_file_stays_in_its_process(store):
    """A class is code; its objects are stored with what they hold, and so are lambdas."""
    async with Engine(store=store, workers=1) as engine:
        run = await engine.run(ChangesClass)
    assert run.data.rates == (1, 3, 3)
    assert run.data.cls is Rated
    assert run["change"].task["cls"].sha == run["start"].task["cls"].sha


class LeftRunning(FlowSpec):
    """Leaves a thread that goes on writing to an artifact."""

    @step
    def start(self):
        self.table = table = np.zeros(3_000_000)

        def add() -> None:
            while not ENDED.is_set():
                table[:] += 1.0

        threading.Thread(target=add, daemon=True).start()
        self.next(self.end)

    @step
    def end(self):
        self.length = len(self.table)
        ENDED.set()


ENDED = threading.Event()  # of the one worker


async def test_an_artifact_that_a_thread_still_writes_to_can_be_read(tmp_path):
    """The run succeeds, and no byte in the store is other than what was hashed."""
    async with Engine(store=tmp_path / "store", workers=1) as engine:
        run = await engine.run(LeftRunning)
    assert run.data.length == 3_000_000
    assert len(run.data.table) == 3_000_000
    assert verify(Layout.open(tmp_path / "store", create=False)).damage == []


LARGE = """
    import numpy as np
    from asyncflow import FlowSpec, step

    class Large(FlowSpec):
        @step
        def start(self):
            self.array = np.zeros(3 << 30, dtype=np.uint8)
            self.array[-1] = 7
            self.blob = bytes(3 << 30)
            self.next(self.read)

        @step
        def read(self):
            self.seen = int(self.array[-1]), len(self.blob)
            self.next(self.change)

        @step
        def change(self):
            self.array[0] = 5
            self.next(self.end)

        @step
        def end(self):
            print(self.seen, self.array[0], self.array[-1])
"""


@pytest.mark.slow
def test_objects_of_3_gib_go_through_a_flow(tmp_path, store):
    """Made, read, changed and read again: lengths beyond 31 and 32 bits are no limit."""
    (tmp_path / "large.py").write_text(textwrap.dedent(LARGE))
    command = [sys.executable, "-m", "asyncflow", "run", "large.py", "--workers", "1"]
    done = run_patiently(command, cwd=tmp_path, cpu_seconds=600)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "] (7, 3221225472) 5 7\n" in done.stdout
