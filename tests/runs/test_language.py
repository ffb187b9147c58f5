"""The language as it runs: foreach, joins, merging, artifacts and `current` on real workers."""

from __future__ import annotations

import asyncio
import copy
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anyio.to_thread
import numpy as np
import pandas as pd
import pytest

from asyncflow import FlowSpec, JSONType, Parameter, current, step
from asyncflow.errors import RunFailedError

# --- foreach ------------------------------------------------------------------------------------


class Colours:
    """Has no length and no iterator, only items by number, as iterables once had."""

    def __getitem__(self, index):
        return ["red", "green"][index]


def iterable(kind):
    """Something to fan out over."""
    made = {
        "list": ["a", {"b": 1}, None],
        "tuple": (1, 2.5, "x"),
        "dict": {"k1": 1, "k2": 2},
        "set": {3, 1, 2},
        "frozenset": frozenset("ab"),
        "range": range(2, 8, 2),
        "generator": (letter * 2 for letter in "abc"),
        "iterator": iter([1, 2]),
        "map": map(str, [1, 2]),
        "string": "xyz",
        "bytes": b"\x01\xff",
        "array": np.arange(6).reshape(3, 2),
        "series": pd.Series([10, 20], index=["p", "q"]),
        "frame": pd.DataFrame({"one": [1, 2], "two": [3, 4]}),
        "old protocol": Colours(),
        "dict view": {"u": 1, "v": 2}.items(),
        "empty list": [],
        "empty tuple": (),
        "empty dict": {},
        "empty generator": iter(()),
        "empty array": np.zeros((0, 3)),
        "empty frame": pd.DataFrame(),
    }
    return made[kind]


def shown(item):
    """An item as something that can be compared."""
    return item.tolist() if isinstance(item, np.ndarray | np.generic) else item


class Over(FlowSpec):
    """Fans out over whatever it is told to."""

    kind = Parameter("kind", default="list")

    @step
    def start(self):
        self.things = iterable(self.kind)
        self.next(self.work, foreach="things")

    @step
    def work(self):
        self.seen = self.index, shown(self.input)
        self.next(self.join)

    @step
    def join(self, inputs):
        self.all_seen = [each.seen for each in inputs]
        self.given = [(each.index, shown(each.input)) for each in inputs]
        self.next(self.end)

    @step
    def end(self):
        pass


KINDS = [
    *("list", "tuple", "dict", "set", "frozenset", "range", "generator", "iterator", "map"),
    *("string", "bytes", "array", "series", "frame", "old protocol", "dict view"),
    *("empty list", "empty tuple", "empty dict", "empty generator", "empty array", "empty frame"),
]


@pytest.mark.parametrize("kind", KINDS)
async def test_foreach_gives_what_a_for_loop_gives(engine, kind):
    """Whatever can be iterated over, its items come in the order in which `for` gives them."""
    run = await engine.run(Over, kind=kind)
    expected = list(enumerate(map(shown, iterable(kind))))
    if "set" in kind:  # its order is that of the process it was made in
        assert [index for index, _ in run.data.all_seen] == [index for index, _ in expected]
        assert {item for _, item in run.data.all_seen} == {item for _, item in expected}
    else:
        assert run.data.all_seen == expected
    assert run.data.given == run.data.all_seen


@pytest.mark.parametrize(
    ("kind", "type_"),
    [("tuple", tuple), ("dict", dict), ("set", set), ("range", range), ("generator", list)],
)
async def test_what_is_fanned_out_over_stays_what_it_is(engine, kind, type_):
    """The artifact is still there with its type; what can be gone through once became a list."""
    run = await engine.run(Over, kind=kind)
    things = run["start"].task.data.things
    assert type(things) is type_
    assert list(things) == list(iterable(kind))


class Ragged(FlowSpec):
    """A foreach in a foreach, of which some are empty."""

    @step
    def start(self):
        self.rows = [[1, 2], [], [3]]
        self.next(self.row, foreach="rows")

    @step
    def row(self):
        self.cells = (cell for cell in self.input)
        self.next(self.cell, foreach="cells")

    @step
    async def cell(self):
        self.stack = self.foreach_stack()
        self.next(self.meet)

    @step
    def meet(self, inputs):
        self.stacks = [each.stack for each in inputs]
        self.stacks_of_inputs = [each.foreach_stack() for each in inputs]
        self.row_index, self.row_item = self.index, self.input
        self.next(self.join)

    @step
    def join(self, inputs):
        self.all_stacks = [each.stacks for each in inputs]
        self.all_of_inputs = [each.stacks_of_inputs for each in inputs]
        self.places = [(each.row_index, each.row_item) for each in inputs]
        self.outside = self.index, self.input, self.foreach_stack()
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_a_ragged_foreach_in_a_foreach(engine):
    """Inner lists of any length, none included; each task knows its place on both levels."""
    run = await engine.run(Ragged)
    first, none, third = run.data.all_stacks
    assert first == [[(0, 3, [1, 2]), (0, None, 1)], [(0, 3, [1, 2]), (1, None, 2)]]
    assert none == []
    assert third == [[(2, 3, [3]), (0, None, 3)]]


async def test_a_join_tells_the_stack_of_its_inputs(engine):
    """It is what the task itself saw, and the join knows how many items a generator has yielded."""
    run = await engine.run(Ragged)
    first, none, third = run.data.all_of_inputs
    assert first == [[(0, 3, [1, 2]), (0, 2, 1)], [(0, 3, [1, 2]), (1, 2, 2)]]
    assert none == []
    assert third == [[(2, 3, [3]), (0, 1, 3)]]


async def test_an_inner_join_stands_in_the_outer_foreach(engine):
    """After the inner join, `self.index` and `self.input` are those of the level above."""
    run = await engine.run(Ragged)
    assert run.data.places == [(0, [1, 2]), (1, []), (2, [3])]


async def test_after_the_outer_join_there_is_no_item(engine):
    """Outside of any foreach `index` and `input` are None and the stack is empty."""
    run = await engine.run(Ragged)
    assert run["join"].task.data.outside == (None, None, [])


class Heavy(FlowSpec):
    """Two thousand large items."""

    @step
    def start(self):
        self.items = (bytes([number % 256]) * 20_000 for number in range(2000))
        self.next(self.work, foreach="items")

    @step
    def work(self):
        before = bytes_read()
        first = self.input[0]
        self.result = first, bytes_read() - before
        self.next(self.join)

    @step
    def join(self, inputs):
        results = [each.result for each in inputs]
        self.right = all(first == number % 256 for number, (first, _) in enumerate(results))
        self.most = max(read for _, read in results)
        self.next(self.end)

    @step
    def end(self):
        pass


def bytes_read():
    """How many bytes this process has read so far, by whatever system call."""
    return int(Path("/proc/self/io").read_text().split()[1])


async def test_a_task_reads_its_own_item_alone(engine):
    """Of a list of 40 MB, a task reads its item of 20 kB, and little else."""
    run = await engine.run(Heavy)
    assert run.data.right
    assert run.data.most < 30_000


class FailingGenerator(FlowSpec):
    """Fans out over a generator that breaks."""

    @step
    def start(self):
        self.items = (1 // (2 - number) for number in range(5))
        self.next(self.work, foreach="items")

    @step
    def work(self):
        self.next(self.join)

    @step
    def join(self, inputs):
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_a_generator_that_raises_fails_its_step(engine):
    """The exception is the step's own, although tasks for its items may have begun."""
    with pytest.raises(RunFailedError) as caught:
        await engine.run(FailingGenerator)
    assert caught.value.failure.step == "start"
    assert caught.value.failure.exception_type == "ZeroDivisionError"
    assert "join" not in [each.id for each in caught.value.run]


# --- joins --------------------------------------------------------------------------------------


class Joining(FlowSpec):
    """Looks at the inputs of a join in every way."""

    @step
    def start(self):
        self.items = list("abcde")
        self.next(self.work, foreach="items")

    @step
    def work(self):
        self.value = self.input.upper()
        self.next(self.join)

    @step
    def join(self, inputs):
        self.first, self.last = inputs[0].value, inputs[-1].value
        self.middle = [each.value for each in inputs[1:4]]
        self.backwards = [each.value for each in inputs[::-1]]
        self.slice_of_slice = [each.value for each in inputs[1:][-2:]]
        self.length = len(inputs), len(inputs[3:]), len(inputs[9:])
        self.numbered = [(each.index, each.input) for each in inputs]
        self.twice = [each.value for each in inputs], [each.value for each in inputs]
        self.errors = [complaint(lambda: inputs[5]), complaint(lambda: inputs.work)]
        self.errors += [complaint(lambda: inputs[0].valu), complaint(lambda: setattr_(inputs[0]))]
        self.next(self.end)

    @step
    def end(self):
        pass


def setattr_(view):
    """Try to change an input."""
    view.value = 1


def complaint(call):
    """What is raised, as text."""
    try:
        call()
    except Exception as error:  # noqa: BLE001 - any
        return f"{type(error).__name__}: {error}"
    return "nothing"


@pytest.fixture(scope="module")
async def joined(engine):
    """A run of `Joining`."""
    return (await engine.run(Joining)).data


async def test_inputs_by_index_from_both_ends(joined):
    """`inputs[0]` and `inputs[-1]` are the first and the last item's."""
    assert (joined.first, joined.last) == ("A", "E")


class Appending(FlowSpec):
    """Its joins change in place what they find in an input."""

    @step
    def start(self):
        self.rows = ["start"]
        self.next(self.left, self.right)

    @step
    def left(self):
        self.rows.append("left")
        self.next(self.join)

    @step
    def right(self):
        self.next(self.join)

    @step
    def join(self, inputs):
        inputs[0].rows.append("join")
        self.rows, self.other = inputs.left.rows, inputs.right.rows
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_what_a_join_changes_in_an_input_it_finds_there(engine):
    """It is changed for the rest of the join, in that input alone."""
    data = (await engine.run(Appending)).data
    assert (data.rows, data.other) == (["start", "left", "join"], ["start"])


async def test_inputs_by_slice(joined):
    """A slice is itself something to slice, count and go through."""
    assert joined.middle == ["B", "C", "D"]
    assert joined.backwards == ["E", "D", "C", "B", "A"]
    assert joined.slice_of_slice == ["D", "E"]
    assert joined.length == (5, 2, 0)


async def test_inputs_know_their_items(joined):
    """`inputs[i].index` and `inputs[i].input` are those of the task."""
    assert joined.numbered == list(enumerate("abcde"))


async def test_inputs_can_be_gone_through_twice(joined):
    """Iterating gives the same each time."""
    assert joined.twice == (list("ABCDE"), list("ABCDE"))


async def test_inputs_say_what_is_wrong(joined):
    """No such input, no such name, no such artifact, and no assigning."""
    assert joined.errors == [
        "IndexError: there is no input 5: the join has 5",
        "AttributeError: inputs of a foreach have no names, so 'work' is not one: use inputs[0]",
        (
            "AttributeError: the input 'work' has no artifact 'valu'; it has items, value; "
            "did you mean 'value'?"
        ),
        "AttributeError: inputs are read-only: assign to self.value instead",
    ]


# --- merging ------------------------------------------------------------------------------------


class Merging(FlowSpec):
    """Merges what two branches have made, in the way that it is told to."""

    how = Parameter("how", default="all")

    @step
    def start(self):
        self.untouched = list(range(1000))
        self.equal = {"a": [1]}
        self.next(self.left, self.right)

    @step
    def left(self):
        self.equal = {"b": [1, 2]}
        self.differs = "left"
        self.only_left = "only left"
        self.untouched.count(1)
        self.next(self.join)

    @step
    def right(self):
        self.equal = {"b": [1, 2]}
        self.differs = "right"
        self.next(self.join)

    @step
    def join(self, inputs):
        if self.how == "all":
            self.differs = inputs.left.differs + inputs.right.differs
            self.merge_artifacts(inputs)
        if self.how == "exclude":
            self.merge_artifacts(inputs, exclude=["differs"])
        if self.how == "include":
            self.merge_artifacts(inputs, include=["equal"])
        if self.how == "conflict":
            self.merge_artifacts(inputs)
        if self.how == "missing":
            self.merge_artifacts(inputs, include=["equal", "nowhere"])
        if self.how == "both":
            self.merge_artifacts(inputs, include=["equal"], exclude=["differs"])
        self.next(self.end)

    @step
    def end(self):
        self.names = [name for name in NAMES if hasattr(self, name)]


NAMES = ["untouched", "equal", "differs", "only_left"]


async def test_merging_takes_what_the_inputs_agree_on(engine):
    """What is equal or in one input only is taken over; what the join assigned stays."""
    data = (await engine.run(Merging)).data
    assert data.names == NAMES
    assert (data.differs, data.only_left, data.equal) == ("leftright", "only left", {"b": [1, 2]})
    assert data.untouched == list(range(1000))


async def test_merging_leaves_out_what_is_excluded(engine):
    """An excluded artifact is not there after the join."""
    run = await engine.run(Merging, how="exclude")
    assert run.data.names == ["untouched", "equal", "only_left"]


async def test_merging_takes_only_what_is_included(engine):
    """With `include` nothing else is there after the join."""
    run = await engine.run(Merging, how="include")
    assert run.data.names == ["equal"]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (
            "conflict",
            "step 'join' cannot merge differs: the inputs have different values; assign",
        ),
        ("missing", "step 'join' cannot merge nowhere: no input has it"),
        ("both", "merge_artifacts takes `include` or `exclude`, not both"),
    ],
)
async def test_merging_says_what_is_wrong(engine, how, message):
    """The run fails with the names, and what to do."""
    with pytest.raises(RunFailedError) as caught:
        await engine.run(Merging, how=how)
    failure = caught.value.failure
    assert failure.exception_type == "asyncflow.errors.MergeArtifactsError"
    assert failure.message.startswith(message)


class Lost(FlowSpec):
    """Asks behind a join for what the join has not taken over."""

    fan_out = Parameter("fan_out", default=False)

    @step
    def start(self):
        self.begun = ["at noon"]
        self.next(self.one, self.other)

    @step
    def one(self):
        self.next(self.meet)

    @step
    def other(self):
        self.next(self.meet)

    @step
    def meet(self, inputs):
        self.next(self.ask)

    @step
    def ask(self):
        if not self.fan_out:
            print(self.begun)
        self.next(self.each, foreach="begun")

    @step
    def each(self):
        self.next(self.gather)

    @step
    def gather(self, inputs):
        self.next(self.end)

    @step
    def end(self):
        pass


@pytest.mark.parametrize("fan_out", [False, True])
async def test_what_a_join_has_lost_is_said_with_the_join(engine, fan_out):
    """Whoever asks for it, and whoever fans out over it, is told where to merge."""
    with pytest.raises(RunFailedError) as caught:
        await engine.run(Lost, fan_out=fan_out)
    failure = caught.value.failure
    assert failure.step == "ask"
    assert (
        "'start' assigns it, but a join passes on only what it assigns or merges: in 'meet', call "
        "self.merge_artifacts(inputs) or assign self.begun = inputs[0].begun, and resume"
    ) in failure.message


# --- artifacts ----------------------------------------------------------------------------------


class Changing(FlowSpec):
    """Changes in place what it inherits."""

    table = [1, 2]  # noqa: RUF012 - the very thing that is examined
    options = Parameter("options", type=JSONType, default='{"a": [1]}')

    @step
    def start(self):
        self.array = np.zeros(200_000)
        self.words = ["start"]
        self.items = range(6)
        self.next(self.work, foreach="items")

    @step
    def work(self):
        self.before = list(self.words), float(self.array.sum())
        self.of_run_before = copy.deepcopy((self.table, self.options))
        self.words.append(f"work {self.input}")
        self.array[self.input] = 1
        self.table.append(self.input)
        self.options["a"].append(self.input)
        self.of_run_now = copy.deepcopy((self.table, self.options))
        self.next(self.after)

    @step
    def after(self):
        self.then = list(self.words), float(self.array.sum())
        self.of_run_then = self.table, self.options
        self.next(self.join)

    @step
    def join(self, inputs):
        self.befores = [each.before for each in inputs]
        self.thens = [each.then for each in inputs]
        self.arrays = [int(np.flatnonzero(each.array)[0]) for each in inputs]
        self.of_run = [(each.of_run_before, each.of_run_now, each.of_run_then) for each in inputs]
        self.table.append(7)
        self.merge_artifacts(inputs, include=["items"])
        self.merged = list(self.table)
        self.next(self.end)

    @step
    def end(self):
        self.at_end = list(self.table)


async def test_siblings_do_not_see_each_others_changes(engine):
    """A list and an array changed in place by one task are as before for others.

    There are six tasks on two workers.
    """
    run = await engine.run(Changing)
    assert run.data.befores == [(["start"], 0.0)] * 6


async def test_changes_in_place_reach_the_next_step(engine):
    """What was appended or written to is what the task after it inherits."""
    run = await engine.run(Changing)
    assert run.data.thens == [(["start", f"work {number}"], 1.0) for number in range(6)]
    assert run.data.arrays == list(range(6))


async def test_what_stands_in_the_class_is_the_same_in_each_task(engine):
    """A task has its own copy of a constant and of a parameter's value, and it ends with the task.

    Until then nothing undoes what was changed in place, not even a merge.
    """
    run = await engine.run(Changing)
    begun = ([1, 2], {"a": [1]})
    assert run.data.of_run == [
        (begun, ([1, 2, number], {"a": [1, number]}), begun) for number in range(6)
    ]
    assert run.data.merged == [1, 2, 7]
    assert run.data.table == run.data.at_end == [1, 2]
    assert run["after"].task.data.options == {"a": [1]}


async def test_class_constants_do_not_change_for_good(engine):
    """After the join, and in the application, the constant is what the class says."""
    run = await engine.run(Changing)
    assert run.data.at_end == Changing.table == [1, 2]


class Constant(FlowSpec):
    """Tries to assign what stands in the class, and assigns a name with an underscore."""

    limit = 3
    _hidden = 7

    @step
    def start(self):
        self.was = self.limit, self._hidden
        self._hidden = 8
        self.refused = complaint(self.change)
        self.next(self.end)

    def change(self):
        """Try to assign a constant."""
        self.limit = 4

    @step
    def end(self):
        self.inherited = self.limit, self._hidden


async def test_a_constant_cannot_be_assigned(engine):
    """As a parameter cannot; a name with an underscore is no constant."""
    run = await engine.run(Constant)
    assert run.data.was == (3, 7)
    assert run.data.refused.startswith("AttributeError: 'limit' is a constant of the class")
    assert run.data.inherited == (3, 8)


class WithInit(FlowSpec):
    """Sets artifacts where Python's classes do."""

    limit = 3

    def __init__(self, use_cli=True):
        self.scale = self.limit * 2
        self.count = 0
        self.where = current.step_name
        super().__init__(use_cli)

    @step
    def start(self):
        self.count += 1
        self.seen = [(self.scale, self.count, self.where)]
        self.next(self.middle)

    @step
    async def middle(self):
        self.seen.append((self.scale, self.count, self.where))
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_each_task_calls_the_flow_s_own_init(engine):
    """What it assigns is there, in each task anew, and is an artifact."""
    run = await engine.run(WithInit)
    assert run.data.seen == [(6, 1, "start"), (6, 0, "middle")]
    assert [run[name].task.data.count for name in ("start", "middle", "end")] == [1, 0, 0]


class FailingInit(FlowSpec):
    """Cannot be made."""

    def __init__(self):
        raise ValueError("no instance today")

    @step
    def start(self):
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_an_init_that_fails_fails_the_task(engine):
    """As a line of the step does."""
    with pytest.raises(RunFailedError) as caught:
        await engine.run(FailingInit)
    assert caught.value.failure.step == "start"
    assert "in __init__" in caught.value.failure.traceback


class Fanning(FlowSpec):
    """Fans out over a constant, after a change of its own copy, and then over a parameter."""

    numbers = [1, 2]  # noqa: RUF012 - the very thing that is examined
    names = Parameter("names", default="a,b", separator=",")

    @step
    def start(self):
        self.numbers.append(3)
        self.next(self.each, foreach="numbers")

    @step
    def each(self):
        self.number = self.input
        self.next(self.middle)

    @step
    def middle(self, inputs):
        self.found = [each.number for each in inputs]
        self.next(self.name, foreach="names")

    @step
    def name(self):
        self.called = self.input
        self.next(self.join)

    @step
    def join(self, inputs):
        self.called = [each.called for each in inputs]
        self.found = inputs[0].found
        self.next(self.end)

    @step
    def end(self):
        self.kept = list(self.numbers), list(self.names)


async def test_a_foreach_runs_over_what_its_step_has_made_of_a_constant(engine):
    """And the constant is what it was, for the tasks that follow and in the store."""
    run = await engine.run(Fanning)
    assert (run.data.found, run.data.called) == ([1, 2, 3], ["a", "b"])
    assert run.data.kept == ([1, 2], ["a", "b"])
    assert run["start"].task.data.numbers == [1, 2]


class Typed(FlowSpec):
    """Parameters of every type."""

    text = Parameter("text", default="a")
    whole = Parameter("whole", default=1)
    real = Parameter("real", default=1.0)
    flag = Parameter("flag", default=False)
    many = Parameter("many", default="a,b", separator=",")
    made = Parameter("made", default=lambda _: [1, 2], type=JSONType)

    @step
    def start(self):
        self.types = [type(getattr(self, name)).__name__ for name in current.parameter_names]
        self.same = dict(current.parameters) == {
            name: getattr(self, name) for name in current.parameter_names
        }
        self.attribute = current.parameters.text
        self.refused = complaint(self.change)
        self.next(self.end)

    def change(self):
        """Try to assign a parameter."""
        self.text = "b"  # type: ignore[assignment]  # the mistake that is examined

    @step
    def end(self):
        self.still = self.text, self.many


async def test_current_parameters_are_those_of_the_run(engine):
    """By name, as attributes and as a mapping, with their types."""
    run = await engine.run(Typed, text="x", real=2)
    data = run["start"].task.data
    assert data.types == ["str", "int", "float", "bool", "list", "list"]
    assert data.same
    assert data.attribute == "x"


async def test_parameters_cannot_be_assigned(engine):
    """A step that tries is told so, and the next step has the parameter."""
    run = await engine.run(Typed)
    assert run["start"].task.data.refused.startswith("AttributeError")
    assert run.data.still == ("a", ["a", "b"])


class FansOutOverInherited(FlowSpec):
    """One branch runs a foreach over what `start` made, the other leaves it alone."""

    @step
    def start(self):
        self.made = list("abc")
        self.listed = list("abc")
        self.rows = Rows(3)
        self.used_up = iter("abc")
        self.changed = list("ab")
        self.next(self.list_them, foreach="listed")

    @step
    def list_them(self):
        self.next(self.listing)

    @step
    def listing(self, inputs):
        self.merge_artifacts(inputs)
        self.next(self.fan, self.leave)

    @step
    def fan(self):
        self.next(self.over_made, foreach="made")

    @step
    def over_made(self):
        self.next(self.then_listed)

    @step
    def then_listed(self, inputs):
        self.merge_artifacts(inputs)
        self.sorted = sorted(self.listed)  # which only reads it
        self.next(self.over_listed, foreach="listed")

    @step
    def over_listed(self):
        self.next(self.then_rows)

    @step
    def then_rows(self, inputs):
        self.merge_artifacts(inputs)
        self.next(self.over_rows, foreach="rows")

    @step
    def over_rows(self):
        self.row = self.input
        self.next(self.then_changed)

    @step
    def then_changed(self, inputs):
        self.merge_artifacts(inputs, exclude=["row"])
        self.seen = [each.row for each in inputs]
        self.changed.append("c")
        self.next(self.over_changed, foreach="changed")

    @step
    def over_changed(self):
        self.next(self.then_used_up)

    @step
    def then_used_up(self, inputs):
        self.merge_artifacts(inputs)
        self.next(self.over_used_up, foreach="used_up")

    @step
    def over_used_up(self):
        self.next(self.fanned)

    @step
    def fanned(self, inputs):
        self.merge_artifacts(inputs)
        self.next(self.meet)

    @step
    def leave(self):
        self.next(self.meet)

    @step
    def meet(self, inputs):
        self.merge_artifacts(inputs, exclude=["used_up", "changed"])
        self.after = [(each.changed, list(each.used_up)) for each in inputs]
        self.next(self.end)

    @step
    def end(self):
        pass


class Rows:
    """Can be iterated as often as one likes, and has no length."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __iter__(self):
        return iter(range(self.count))


async def test_a_foreach_over_an_inherited_artifact_is_no_change_of_it(engine):
    """What its step has changed, or the foreach has used up, is a new version."""
    run = await engine.run(FansOutOverInherited)
    assert run.data.seen == [0, 1, 2]
    assert type(run.data.rows) is Rows
    assert run.data.after == [(list("abc"), list("abc")), (list("ab"), list("abc"))]


# --- current ------------------------------------------------------------------------------------


class AsyncThreads(FlowSpec):
    """Async tasks side by side that ask in threads and tasks of every kind."""

    @step
    def start(self):
        self.items = range(8)
        self.next(self.ask, foreach="items")

    @step
    async def ask(self):
        seen = {"self": current.pathspec}
        await asyncio.sleep(0.02)
        seen["after a wait"] = current.pathspec
        seen["to_thread"] = await asyncio.to_thread(asked_late)
        seen["anyio"] = await anyio.to_thread.run_sync(asked_late)
        seen["child task"] = await asyncio.create_task(asked_in_task())
        loop = asyncio.get_running_loop()
        seen["default executor"] = await loop.run_in_executor(None, asked_late)
        with ThreadPoolExecutor(1) as pool:
            seen["pool"] = await asyncio.wrap_future(pool.submit(asked_late))
        seen["thread"] = asked_by_thread()
        self.seen = seen
        self.right = current.pathspec, current.task_id
        self.next(self.join)

    @step
    def join(self, inputs):
        self.wrong = [
            (each.index, how)
            for each in inputs
            for how, pathspec in each.seen.items()
            if pathspec != each.right[0]
        ]
        self.different = len({each.right for each in inputs})
        self.next(self.end)

    @step
    def end(self):
        pass


def asked_late():
    """Where this runs, once others had time to go on."""
    time.sleep(0.01)
    return current.pathspec


async def asked_in_task():
    """The same, in a task of its own."""
    await asyncio.sleep(0.01)
    return current.pathspec


def asked_by_thread():
    """The same, in a thread that is started by hand, and in one that this one starts."""
    seen = []

    def ask():
        inner = threading.Thread(target=lambda: seen.append(asked_late()))
        inner.start()
        inner.join()

    outer = threading.Thread(target=ask)
    outer.start()
    outer.join()
    return seen[0]


async def test_current_is_right_in_threads_of_concurrent_async_steps(engine):
    """Eight tasks side by side on a loop, and each way to start a thread or a task within them."""
    run = await engine.run(AsyncThreads)
    assert run.data.different == 8
    assert run.data.wrong == []


class PooledThreads(FlowSpec):
    """`def` tasks that share an executor of their worker's, and start threads of their own."""

    @step
    def start(self):
        self.items = range(12)
        self.next(self.ask, foreach="items")

    @step
    def ask(self):
        self.seen = [SHARED.submit(asked_late).result(), asked_by_thread()]
        self.seen += SHARED.map(lambda _: asked_late(), range(2))
        self.pathspec = current.pathspec
        self.next(self.join)

    @step
    def join(self, inputs):
        self.wrong = [each.index for each in inputs if set(each.seen) != {each.pathspec}]
        self.next(self.end)

    @step
    def end(self):
        pass


SHARED = ThreadPoolExecutor(2)


async def test_current_is_right_in_an_executor_that_tasks_share(engine):
    """The executor's threads outlive the task that started them, and serve the next one's calls."""
    run = await engine.run(PooledThreads)
    assert run.data.wrong == []


class NamedAsStep(FlowSpec):
    @step
    def start(self):
        self.items = [1, 2]
        self.next(self.train, foreach="items")

    @step
    def train(self):
        self.train = self.input * 10  # type: ignore[method-assign] # what is tested
        self.here = self.train
        self.next(self.join)

    @step
    def join(self, inputs):
        self.models = [each.train for each in inputs]
        self.turns = 0
        self.next(self.turn)

    @step
    def turn(self):
        self.before = callable(self.turn)
        self.turns += 1
        self.more = self.turns < 3
        self.turn = self.turns  # type: ignore[method-assign, assignment] # what is tested
        self.next({True: self.turn, False: self.end}, condition="more")

    @step
    def end(self):
        self.later = callable(self.turn)


async def test_an_artifact_may_have_the_name_of_its_step(engine):
    """The name is the artifact in its task, for a join and in the client; else it is the step."""
    run = await engine.run(NamedAsStep)
    assert [task.data.here for task in run["train"]] == [10, 20]
    assert [task.data.train for task in run["train"]] == [10, 20]
    assert run.data.models == [10, 20]
    assert (run.data.before, run.data.later, run.data.turn) == (True, True, 3)
