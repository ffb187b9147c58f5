from __future__ import annotations

import abc
import copy
import functools
import gc
import math
import pickle
import weakref
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncflow import FlowSpec, Parameter, step
from asyncflow.errors import FlowError, MergeArtifactsError, TransitionError
from asyncflow.flow import missing_artifact, spec
from asyncflow.flow.bound_task import artifacts_of
from asyncflow.flow.constants import constants_of
from asyncflow.flow.graph_reader import RESERVED_NAMES, read_graph
from asyncflow.flow.join_inputs import Inputs, InputView
from asyncflow.flow.node import Transition
from asyncflow.flow.parameters import Parameter as AnyParameter
from asyncflow.flow.task_instance import bind
from asyncflow.values import ArtifactRef, Encoding, Place


class Sample(FlowSpec):
    alpha = Parameter("alpha", default=0.5)
    words = ["good"]  # noqa: RUF012 - a value of the class that changes is what is tested
    limit = 3
    _shared: Any = {}  # noqa: RUF012 - a value of the class that changes is what is tested

    @step
    def start(self):
        self.items = [1, 2]
        self.next(self.work, foreach="items")

    @step
    def work(self):
        self.next(self.left, self.right)

    @step
    def left(self):
        self.next(self.meet)

    @step
    def right(self):
        self.next(self.meet)

    @step
    def meet(self, inputs):
        self.next(self.gather)

    @step
    def gather(self, inputs):
        self.next(self.end)

    @step
    def end(self):
        pass

    @property
    def broken(self):
        return self.nothing_like_it + 1

    def double(self):
        return self.limit * 2


def ref_to(value: object, **changes: Any) -> ArtifactRef:
    """A ref that holds the value itself."""
    data = pickle.dumps(value)
    ref = ArtifactRef(Place.INLINE, Encoding.PICKLE, "", len(data), b"", "", 0, data)
    return ref._replace(**changes)


class Task:
    """A task in memory: what `FlowSpec` asks of a worker."""

    def __init__(self, step_name: str = "work", **values: Any) -> None:
        self.graph = read_graph(Sample)
        self.step = step_name
        self.index: int | None = 1
        self.transition: Transition | None = None
        self.choice = ""
        self.num_parallel: int | None = None
        self.refs = {name: ref_to(value) for name, value in values.items()}
        self.loaded: list[str] = []
        self.constants: dict[str, object] = {}
        self.asked = 0

    def names(self):
        return self.refs.keys()

    def load(self, name: str) -> object:
        self.loaded.append(name)
        return pickle.loads(self.refs[name].data)

    def forget(self, name: str) -> None:
        del self.refs[name]

    def adopt(self, name: str, ref: ArtifactRef) -> None:
        self.refs[name] = ref

    def input(self) -> object:
        self.asked += 1
        return [self.asked]

    def stack(self) -> list[tuple[int, int | None, object]]:
        return [(0, 2, "a"), (1, 3, "b")]


class Source:
    """A task that leads to a join."""

    def __init__(self, step_name: str = "left", index: int | None = 0, **refs: Any) -> None:
        self.step, self.index, self.graph = step_name, index, read_graph(Sample)
        self._refs = refs
        self.loaded: list[str] = []

    def refs(self) -> dict[str, ArtifactRef]:
        return self._refs

    def has(self, name: str) -> bool:
        return name in self._refs

    def load(self, name: str) -> object:
        self.loaded.append(name)
        return pickle.loads(self._refs[name].data)

    def input(self) -> object:
        return "item"

    def stack(self) -> list[tuple[int, int | None, object]]:
        return [(0, 1, "item")]


def sample(step_name: str = "work", **values: Any) -> tuple[Any, Task]:
    """An instance for a task that inherits these artifacts, beside the flow's constants."""
    task = Task(step_name, alpha=0.5, words=["good"], limit=3, **values)
    return bind(Sample, task), task


def views(**values_by_step: dict[str, object]) -> list[InputView]:
    """Inputs that have these artifacts."""
    return [
        InputView(Source(name, 0, **{key: ref_to(value) for key, value in values.items()}))
        for name, values in values_by_step.items()
    ]


# --- artifacts --------------------------------------------------------------------------------


def test_an_inherited_artifact_is_loaded_when_it_is_read():
    """Once, and not before."""
    instance, task = sample(x=[1])
    assert task.loaded == []
    assert instance.x == [1]
    assert instance.x is instance.x
    assert task.loaded == ["x"]


def test_what_is_assigned_is_what_is_read():
    """An inherited value is not loaded for that."""
    instance, task = sample(x=1)
    instance.x = 2
    assert instance.x == 2
    assert task.loaded == []


def test_what_is_to_be_stored_is_what_the_task_made_or_read():
    """And nothing of our own."""
    instance, _ = sample(x=1, y=2)
    _ = instance.x, instance.input
    instance.z = 3
    instance._hidden = 4
    assert artifacts_of(instance) == {"x": 1, "z": 3, "_hidden": 4}


def test_a_deleted_artifact_is_gone():
    """Whether it was inherited, read, or made."""
    instance, task = sample(x=1, y=2)
    _ = instance.y
    instance.z = 3
    for name in ("x", "y", "z"):
        delattr(instance, name)
        assert not hasattr(instance, name)
        with pytest.raises(AttributeError):
            delattr(instance, name)
    assert not {"x", "y", "z"} & set(task.names())


def test_a_deleted_artifact_can_be_made_again():
    """It is a new one then."""
    instance, _ = sample(x=1)
    del instance.x
    instance.x = 2
    assert artifacts_of(instance) == {"x": 2}


def test_an_unknown_artifact_is_an_attribute_error():
    """With the one that may have been meant."""
    instance, _ = sample(accuracy=1)
    with pytest.raises(
        AttributeError, match="'Sample' has no artifact 'acuracy' here; did you mea"
    ):
        _ = instance.acuracy
    assert not hasattr(instance, "zzz")
    assert getattr(instance, "zzz", 5) == 5
    assert not hasattr(instance, "__array__")


def test_a_join_says_why_it_inherits_nothing():
    """The artifacts of the branches are at the inputs."""
    instance, _ = sample("meet")
    with pytest.raises(
        AttributeError, match="a join inherits none: read it from one of the inputs"
    ):
        _ = instance.x


def test_the_message_is_made_only_for_who_reads_it(monkeypatch):
    """`hasattr` searches no similar names."""
    monkeypatch.setattr(missing_artifact, "did_you_mean", lambda *_: pytest.fail("searched"))
    instance, _ = sample()
    assert not hasattr(instance, "x")


@pytest.mark.parametrize(
    ("step_name", "name", "told"),
    [
        ("end", "items", r"'start' assigns it, but a join passes .* in 'meet' and 'gather', "),
        (
            "end",
            "table",
            r"if a step before made it: a join passes .* in 'meet' and 'gather', ",
        ),
        ("end", "limits", r"here; did you mean 'limit'\?$"),
        ("work", "table", "here$"),
        (
            "gather",
            "items",
            r"'start' assigns it, but a join inherits none: read it as inputs\[0\]\.items, or ",
        ),
    ],
)
def test_an_artifact_that_a_join_did_not_hand_on_is_explained(step_name, name, told):
    """Where it was lost, what to write there, and from where to resume."""
    instance, _ = sample(step_name)
    with pytest.raises(AttributeError, match=told) as caught:
        getattr(instance, name)
    if "hands on" in told:
        advice = f"or assign self.{name} = inputs[0].{name}, and resume from 'meet'"
        assert advice in str(caught.value)


def test_an_input_that_lacks_what_an_inner_join_did_not_hand_on_is_explained():
    """As a step behind that join is told."""
    view = InputView(Source("meet", x=ref_to(1)))
    with pytest.raises(AttributeError, match=r"no artifact 'row'; it has x; if .* in 'meet', "):
        _ = view.row


def test_a_property_that_fails_says_what_it_missed():
    """And not that the property is missing."""
    instance, _ = sample()
    with pytest.raises(AttributeError, match="no artifact 'nothing_like_it'"):
        _ = instance.broken


def test_a_parameter_is_read_from_the_task():
    """Once, as any artifact; and it stays read-only."""
    task = Task(alpha=0.75)
    instance = bind(Sample, task)
    assert (instance.alpha, instance.alpha) == (0.75, 0.75)
    assert task.loaded == ["alpha"]
    assert artifacts_of(instance) == {"alpha": 0.75}
    with pytest.raises(AttributeError, match="read-only"):
        instance.alpha = 1  # type: ignore[assignment]  # the mistake that is examined
    with pytest.raises(AttributeError, match="read-only"):
        del instance.alpha


def test_dir_lists_what_could_be_read():
    """For whoever types at a prompt."""
    instance, _ = sample(x=1)
    assert {"x", "alpha", "words", "next"} <= set(dir(instance))


def test_a_flow_explains_itself():
    """By its step."""
    assert repr(sample()[0]) == "<Sample in step work>"
    assert repr(Sample(use_cli=False)) == "<Sample>"


def test_name_is_the_flow_s_unless_it_is_an_artifact():
    """Metaflow has it so."""
    instance, _ = sample()
    assert instance.name == "Sample"
    instance.name = "mine"
    assert artifacts_of(instance) == {"name": "mine"}
    assert sample(name="mine")[0].name == "mine"


@pytest.mark.parametrize("make", [lambda: sample()[0], lambda: sample()[0].double])
def test_a_flow_cannot_be_pickled(make):
    """Nor a method of it: the error says what to do instead."""
    with pytest.raises(TypeError, match=r"a flow cannot be pickled.*pass on the artifacts"):
        pickle.dumps(make())
    with pytest.raises(TypeError, match="cannot be pickled"):
        copy.deepcopy(sample()[0])


# --- constants --------------------------------------------------------------------------------


class Everything(FlowSpec):
    number = 1
    text = "x"
    table = {"a": [1]}  # noqa: RUF012 - a value of the class that changes is what is tested
    nothing = None
    called = len
    _private = 2
    __very_private = 3
    alpha = Parameter("alpha", default=1)
    mathematics = math

    class Inner:
        """A class within the class."""

    @property
    def computed(self):
        return 1

    @functools.cached_property
    def kept(self):
        return 1

    @classmethod
    def of_class(cls):
        return cls

    @staticmethod
    def of_nobody():
        return 1

    @step
    def start(self):
        pass

    some = lambda self: 1  # noqa: E731 - as users may write


def test_constants_are_the_plain_values_of_the_class():
    """No methods, descriptors, classes, modules, parameters, and nothing with an underscore."""
    assert list(constants_of(Everything)) == ["number", "text", "table", "nothing", "called"]


def test_constants_are_inherited_and_replaced():
    """From base classes and mixins; a subclass may turn one into something else."""

    class Mixin:
        extra = 5

    class Later(Everything, Mixin):
        number = 2

        def text(self):  # type: ignore[override]  # that is examined
            return "now a method"

    found = constants_of(Later)
    assert (found["number"], found["extra"]) == (2, 5)
    assert "text" not in found


def test_a_constant_is_each_task_s_own():
    """What one task appends, another does not see; nor does the class."""
    one, _ = sample()
    one.words.append("day")
    other, _ = sample()
    assert other.words == ["good"]
    assert Sample.words == ["good"]


def test_a_constant_is_what_the_run_began_with():
    """Whatever the class says where the task is."""
    task = Task(words=["begun"], limit=4)
    instance = bind(Sample, task)
    assert instance.words == ["begun"]
    assert instance.double() == 8
    assert Sample.limit == 3


def test_a_constant_can_be_neither_assigned_nor_deleted():
    """The error says what to do; what was changed in place is there until the task ends."""
    instance, _ = sample()
    with pytest.raises(AttributeError, match=r"'limit' is a constant .* assign to another name"):
        instance.limit = 9
    with pytest.raises(AttributeError, match="'limit' is a constant of the class"):
        del instance.limit
    assert instance.limit == 3
    instance.words.append("day")
    assert instance.words == ["good", "day"]


def test_an_attribute_with_an_underscore_belongs_to_the_class():
    """Until a step assigns it: then it is an artifact, and the next step inherits that."""
    instance, _ = sample()
    assert instance._shared is Sample._shared
    instance._shared = {"own": 1}
    assert artifacts_of(instance) == {"_shared": {"own": 1}}
    assert sample(_shared={"own": 1})[0]._shared == {"own": 1}
    assert Sample._shared == {}


def test_an_instance_for_a_task_looks_like_any():
    """It is of the user's class, and its class has the user's name."""
    instance, _ = sample()
    assert isinstance(instance, Sample)
    kind: Any = type(instance)
    assert (kind.__name__, kind.__qualname__) == (Sample.__name__, Sample.__qualname__)
    assert (kind.__module__, kind.__doc__) == (Sample.__module__, Sample.__doc__)
    assert kind.words is Sample.words
    assert read_graph(kind) == read_graph(Sample)
    assert type(sample()[0]) is kind


def test_subclass_hooks_hear_nothing_of_it():
    """Nor are abstract classes in the way."""
    heard = []

    class Registered(FlowSpec, abc.ABC):
        limit = 1

        def __init_subclass__(cls, *, tag: str) -> None:
            heard.append(tag)

        def double(self):
            return self.limit * 2

    class Concrete(Registered, tag="x"):
        def double(self):
            return super().double() + 1

    assert bind(Concrete, Task(limit=2)).double() == 5
    assert heard == ["x"]


# --- self.next --------------------------------------------------------------------------------


def test_a_transition_is_noted():
    """As it was read from the source."""
    instance, task = sample("work")
    instance.work()
    assert task.transition == Transition(("left", "right"))


def test_a_foreach_names_an_artifact_that_is_there():
    """Made by the step, inherited, or the class's; it is not loaded for that."""
    instance, task = sample("start")
    instance.start()
    assert task.transition == Transition(("work",), "items")
    instance, task = sample("start", items=[1])
    instance.next(instance.work, foreach="items")
    assert task.transition == Transition(("work",), "items")
    assert task.loaded == []


def test_a_foreach_over_nothing():
    """The error says what to assign."""
    instance, _ = sample("start", itmes=[1])
    with pytest.raises(
        TransitionError, match=r"no self\.items: assign it before; did you mean 'it"
    ):
        instance.next(instance.work, foreach="items")


def test_a_foreach_over_what_has_no_items():
    """The error tells the type."""
    instance, _ = sample("start")
    instance.items = 3
    with pytest.raises(
        TransitionError, match=r"self\.items has no items: it is of type 'int'"
    ) as e:
        instance.next(instance.work, foreach="items")
    assert e.value.step == "start"
    assert e.value.file == __file__


def test_a_second_transition_is_refused():
    """There is one for each task."""
    instance, _ = sample("left")
    instance.next(instance.meet)
    with pytest.raises(TransitionError, match=r"twice, first as self\.next\(self\.meet\)"):
        instance.next(instance.meet)


@pytest.mark.parametrize(
    ("steps", "foreach"),
    [(["right", "left"], None), (["left"], None), ([], None), (["left", "right"], "items")],
)
def test_a_transition_other_than_the_one_that_was_read(steps, foreach):
    """Both are told."""
    instance, _ = sample("work")
    with pytest.raises(
        TransitionError, match=r"but self\.next\(self\.left, self\.right\) was read"
    ):
        instance.next(*(getattr(instance, name) for name in steps), foreach=foreach)


def test_outside_a_run_nothing_happens():
    """So that a step can be called by a unit test."""
    instance = Sample(use_cli=False)
    instance.start()
    assert instance.items == [1, 2]
    assert (instance.input, instance.index, instance.foreach_stack()) == (None, None, [])


# --- foreach ----------------------------------------------------------------------------------


def test_input_index_and_stack_come_from_the_task():
    """The item is read once."""
    instance, task = sample()
    assert instance.index == 1
    assert instance.foreach_stack() == [(0, 2, "a"), (1, 3, "b")]
    assert instance.input == [1]
    assert instance.input is instance.input
    assert task.asked == 1


def test_input_and_index_cannot_be_assigned():
    """They are no artifacts."""
    instance, _ = sample()
    with pytest.raises(AttributeError):
        instance.input = 3
    with pytest.raises(AttributeError):
        instance.index = 3


# --- inputs -----------------------------------------------------------------------------------


def make_inputs(count: int = 3, names: list[str] | None = None) -> tuple[Inputs, list[int]]:
    """Inputs, and the indexes of those that were made so far."""
    made: list[int] = []

    def make(index: int) -> InputView:
        made.append(index)
        name = names[index] if names else "work"
        return InputView(Source(name, index, x=ref_to(index)))

    return Inputs(names, count, make), made


def test_inputs_are_made_when_asked_for():
    """By index, from either end."""
    inputs, made = make_inputs()
    assert len(inputs) == 3
    assert made == []
    assert (inputs[0].x, inputs[-1].x) == (0, 2)
    assert made == [0, 2]
    with pytest.raises(IndexError, match="there is no input 3: the join has 3"):
        inputs[3]


def test_an_input_of_a_branch_is_the_same_however_it_is_asked_for():
    """By name, by number, in a loop or in a slice, at any time while the join runs."""
    inputs, made = make_inputs(2, ["left", "right"])
    vars(inputs.left)["rows"] = ["changed"]
    gc.collect()
    views = [inputs.left, inputs[0], inputs[-2], next(iter(inputs)), inputs[:1][0]]
    assert all(view is views[0] for view in views)
    assert inputs[:1].left.rows == ["changed"]
    assert made == [0]


def test_an_input_of_a_foreach_is_the_same_as_long_as_it_is_held():
    """Nobody else keeps it: a wide join would hold the values of all."""
    inputs, _ = make_inputs(3)
    held = inputs[1]
    assert inputs[1] is held
    assert inputs[1:][0] is held
    assert list(inputs)[1] is held
    gone = weakref.ref(held)
    del held
    gc.collect()
    assert gone() is None


def test_inputs_are_iterated_one_at_a_time():
    """So that a wide join costs no memory."""
    inputs, made = make_inputs(100_000)
    iterator = iter(inputs)
    assert [next(iterator).x, next(iterator).x] == [0, 1]
    assert made == [0, 1]
    assert [each.x for each in reversed(make_inputs()[0])] == [2, 1, 0]


@given(st.integers(0, 9), st.slices(9))
def test_inputs_are_sliced_like_a_list(count, some):
    """Still without making any."""
    inputs, made = make_inputs(count)
    part = inputs[some]
    assert made == []
    assert [each.x for each in part] == list(range(count))[some]
    assert len(part) == len(list(range(count))[some])


def test_inputs_have_the_names_of_their_branches():
    """Those of the last step in each."""
    inputs, _ = make_inputs(2, ["left", "right"])
    assert inputs.right.x == 1
    assert inputs[1:].right.x == 1
    assert {"left", "right"} <= set(dir(inputs))
    with pytest.raises(AttributeError, match="no input is called 'up': there are left, right"):
        _ = inputs.up


def test_inputs_of_a_foreach_have_no_names():
    """The error says how to get at them."""
    with pytest.raises(AttributeError, match=r"inputs of a foreach have no names.*inputs\[0\]"):
        _ = make_inputs()[0].work


def test_inputs_explain_themselves():
    """By number, names and artifacts."""
    assert repr(make_inputs()[0]) == "<Inputs of 3 tasks>"
    inputs, _ = make_inputs(2, ["left", "right"])
    assert repr(inputs) == "<Inputs of 2 tasks: left, right>"
    assert repr(inputs.left) == "<input left[0]: x>"
    assert repr(InputView(Source("a", None))) == "<input a: no artifacts>"


def test_no_inputs_are_false():
    """After a foreach over nothing."""
    inputs, _ = make_inputs(0)
    assert not inputs
    assert list(inputs) == []


def test_an_input_reads_its_artifacts_when_asked():
    """Each once."""
    source = Source(x=ref_to([1]), _y=ref_to(2))
    view: Any = InputView(source)
    assert source.loaded == []
    assert view.x is view.x
    assert view._y == 2
    assert source.loaded == ["x", "_y"]
    assert (view.index, view.input, view.foreach_stack()) == (0, "item", [(0, 1, "item")])
    assert {"x", "index"} <= set(dir(view))


def test_an_input_without_the_artifact():
    """The error tells what it has."""
    with pytest.raises(AttributeError, match="the input 'left' has no artifact 'z'; it has x"):
        _ = InputView(Source(x=ref_to(1))).z


def test_an_input_is_read_only():
    """The error says where to assign."""
    view: Any = InputView(Source(x=ref_to(1)))
    with pytest.raises(AttributeError, match=r"read-only: assign to self\.x instead"):
        view.x = 2
    with pytest.raises(AttributeError, match="read-only"):
        del view.x


def test_inputs_cannot_be_pickled():
    """The error says what to keep instead."""
    inputs, _ = make_inputs()
    for thing in (inputs, inputs[0]):
        with pytest.raises(TypeError, match="keep the artifacts that are needed"):
            pickle.dumps(thing)


# --- merging ----------------------------------------------------------------------------------


def test_a_merge_takes_over_what_the_inputs_agree_on():
    """Or what only one of them has; unread."""
    instance, task = sample("meet")
    inputs = views(left={"x": 1, "only_left": 2}, right={"x": 1, "only_right": 3})
    instance.merge_artifacts(inputs)
    assert (instance.x, instance.only_left, instance.only_right) == (1, 2, 3)
    assert task.loaded == ["x", "only_left", "only_right"]
    sources: list[Any] = [vars(view)["_asyncflow_source"] for view in inputs]
    assert [source.loaded for source in sources] == [[], []]


def test_a_merge_lists_what_the_inputs_disagree_on():
    """And takes over nothing then."""
    instance, task = sample("meet")
    with pytest.raises(MergeArtifactsError, match=r"cannot merge x, y: the inputs have dif") as e:
        instance.merge_artifacts(
            views(left={"x": 1, "y": 1, "z": 1}, right={"x": 2, "y": 2, "z": 1})
        )
    assert (e.value.artifacts, e.value.step) == (("x", "y"), "meet")
    assert "z" not in task.names()


def test_a_merge_leaves_alone_what_the_join_assigned():
    """That is how a conflict is settled."""
    instance, task = sample("meet")
    instance.x = 9
    instance.merge_artifacts(views(left={"x": 1}, right={"x": 2}))
    assert instance.x == 9
    assert "x" not in task.names()


def test_a_merge_excludes():
    """By name, as second argument as in Metaflow."""
    instance, _ = sample("meet")
    instance.merge_artifacts(views(left={"x": 1, "y": 1}, right={"x": 2}), ["x"])
    assert instance.y == 1
    assert not hasattr(instance, "x")


def test_a_merge_includes():
    """Those and no others."""
    instance, _ = sample("meet")
    instance.merge_artifacts(views(left={"x": 1, "y": 1}, right={"y": 2}), include=["x"])
    assert instance.x == 1
    assert not hasattr(instance, "y")


def test_a_merge_includes_nothing_that_is_not_there():
    """The error names it; what the join has itself may be named."""
    instance, _ = sample("meet")
    instance.own = 1
    with pytest.raises(MergeArtifactsError, match="cannot merge z: no input has it") as caught:
        instance.merge_artifacts(views(left={"x": 1}), include=["x", "own", "z"])
    assert caught.value.artifacts == ("z",)


def test_a_merge_includes_or_excludes():
    """Not both."""
    instance, _ = sample("meet")
    with pytest.raises(MergeArtifactsError, match="`include` or `exclude`, not both"):
        instance.merge_artifacts([], include=["x"], exclude=["y"])


def test_a_merge_is_for_joins():
    """The error names the step."""
    instance, _ = sample("work")
    with pytest.raises(FlowError, match="merge_artifacts is for joins") as caught:
        instance.merge_artifacts([])
    assert caught.value.step == "work"


def test_a_merge_is_of_inputs():
    """Of nothing else."""
    instance, _ = sample("meet")
    with pytest.raises(FlowError, match="takes the inputs of a join, not 3"):
        instance.merge_artifacts([3])


def test_a_merge_of_no_inputs():
    """After a foreach over nothing there is nothing to merge."""
    instance, task = sample("gather")
    instance.merge_artifacts(make_inputs(0)[0])
    assert set(task.names()) == {"alpha", "words", "limit"}


def test_parameters_and_constants_are_not_merged():
    """They are the same everywhere."""
    instance, task = sample("meet")
    before = task.refs["alpha"], task.refs["limit"]
    instance.merge_artifacts(
        views(left={"alpha": 1, "limit": 1}, right={"alpha": 2, "limit": 2}), include=["limit"]
    )
    assert (task.refs["alpha"], task.refs["limit"]) == before


def test_what_a_join_has_done_to_a_constant_is_not_undone():
    """Merging leaves alone what the join has itself, changed in place as well as assigned."""
    instance, _ = sample("meet")
    instance.words.append("day")
    instance.merge_artifacts(views(left={"words": ["good"]}, right={"words": ["good"]}))
    assert instance.words == ["good", "day"]


def test_a_second_merge_leaves_alone_what_the_first_has_taken_over():
    """It may have been changed in place since."""
    instance, _ = sample("meet")
    instance.merge_artifacts(views(left={"log": ["a"]}, right={"log": ["a"]}), include=["log"])
    instance.log.append("joined")
    instance.merge_artifacts(views(left={"log": ["a"], "x": 1}, right={"log": ["a"], "x": 1}))
    assert (instance.log, instance.x) == (["a", "joined"], 1)


def test_the_same_bytes_in_two_places_are_the_same_value():
    """What lies elsewhere is compared by its hash."""
    instance, task = sample("meet")
    one = ref_to(1, place=Place.SEGMENT, digest=b"d" * 32, file="1/w1.seg", data=b"")
    other = one._replace(place=Place.BLOB, file="", offset=7)
    instance.merge_artifacts(
        [InputView(Source("left", x=one)), InputView(Source("right", x=other))]
    )
    assert task.refs["x"] is one


# --- the rest ---------------------------------------------------------------------------------


def test_making_an_instance_hands_over_to_the_command_line(monkeypatch):
    """With the class; and says so where there is none."""
    launched: list[type] = []
    monkeypatch.setattr(spec, "_launcher", launched.append)
    Sample()
    assert launched == [Sample]
    monkeypatch.setattr(spec, "_launcher", None)
    with pytest.raises(FlowError, match="no command line"):
        Sample()


def test_reserved_names_are_what_flowspec_means_something_by():
    """What a user must not redefine is reserved, and nothing else."""
    public = {name for name in vars(FlowSpec) if not name.startswith("_")}
    assert public == RESERVED_NAMES


def test_artifacts_of_any_name_can_be_kept():
    """An input's own attributes are reserved names too, so nothing can be hidden by them."""
    own = {name for name in vars(InputView) if not name.startswith("_")}
    assert own <= RESERVED_NAMES
    assert isinstance(Sample.alpha, AnyParameter)
