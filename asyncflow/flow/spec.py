"""`FlowSpec`: the base class of a user's flow, and what a worker does with it.

    class Greeting(FlowSpec):
        @step
        def start(self):
            self.words = ["good", "day"]
            self.next(self.end)

        @step
        def end(self):
            print(*self.words)

An attribute that a step assigns to `self` is an artifact. It is kept in the instance's `__dict__`.
An inherited artifact is loaded from a `BoundTask` on first access, and then kept there too. A
worker makes an instance for each task with `bind`, and gets what to store from `artifacts_of`.

Class attributes are artifacts as well, called constants. Methods and other descriptors, classes,
modules, parameters and names that begin with an underscore are not.

Parameters and constants belong to the run and are the same in all its tasks. They cannot be
assigned. Each task has its own copy: if it changes one in place, only that task sees the change.
"""

from __future__ import annotations

import functools
import operator
import reprlib
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar, cast

from asyncflow.errors import ArtifactError, FlowError, TransitionError
from asyncflow.flow.graph import Graph
from asyncflow.flow.join_inputs import (
    Inputs,
    InputSource,
    InputView,
    Merge,
    load_once,
)
from asyncflow.flow.missing_artifact import MissingArtifact
from asyncflow.flow.node import Transition
from asyncflow.flow.parameters import Parameter, ParameterContext, user_name
from asyncflow.values import MOST_NODES

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from asyncflow.values import ArtifactRef

__all__ = [
    "BoundTask",
    "FlowSpec",
    "InputSource",
    "InputView",
    "Inputs",
    "Transition",
    "artifacts_of",
    "bind",
    "constants_of",
    "initialize",
    "is_constant",
    "set_launcher",
]

_OURS: Final = "_asyncflow_"
"""The prefix of all attributes that are not the user's."""
_STATE: Final = "_asyncflow_state"
_INPUT: Final = "_asyncflow_input"

_KEPT_OVERLAYS: Final = 64  # for the flow classes used last; a worker has a handful


class BoundTask(Protocol):
    """What a flow instance needs from the task that it is bound to."""

    transition: Transition | None
    """Set by `self.next(...)`."""
    choice: str
    """The step that a condition has chosen; empty where there is none."""
    num_parallel: int | None
    """How many tasks the gang of the next step has; None where there is none."""

    @property
    def step(self) -> str:
        """The step that runs."""
        ...

    @property
    def graph(self) -> Graph:
        """The graph of the flow."""
        ...

    @property
    def index(self) -> int | None:
        """The index of the task's item in the innermost foreach; None outside of any."""
        ...

    def names(self) -> Collection[str]:
        """The artifacts that the task has inherited."""
        ...

    def load(self, name: str) -> object:
        """Load the value of an inherited artifact; called once for each, unless it is forgotten.

        Raises:
            KeyError: No inherited artifact has this name.
        """
        ...

    def forget(self, name: str) -> None:
        """Drop an inherited artifact from the task."""
        ...

    def adopt(self, name: str, ref: ArtifactRef) -> None:
        """Add an artifact of an input to the task, without reading it."""
        ...

    def input(self) -> object:
        """The item that the task is for; None outside of any foreach."""
        ...

    def stack(self) -> list[tuple[int, int | None, object]]:
        """Index, count and item of every foreach around the task, outermost first."""
        ...


# --- the flow ---------------------------------------------------------------------------------


class FlowSpec:
    """The base class of a flow: extend it, and put `@step` on the methods that are its steps.

    `MyFlow()` starts the command line, so a file that ends with
    `if __name__ == "__main__": MyFlow()` is a program. At Python's prompt that would end the
    session, so it is refused there. `MyFlow(use_cli=False)` makes an instance on which to try
    methods, as in a unit test: parameters have their defaults, and `self.next` does nothing.

    If a flow has its own `__init__`, each task calls it without arguments before its step. What it
    assigns is an artifact of every task, and replaces what the previous step has left there.
    """

    def __init__(self, use_cli: bool = True) -> None:  # noqa: FBT001, FBT002 - as in Metaflow
        if (
            use_cli and self._asyncflow_task() is None
        ):  # a task calls an `__init__` of the flow's own
            _launch(type(self))

    # --- for steps ---

    def next(
        self,
        *steps: Callable[..., Any] | Mapping[Any, Callable[..., Any]],
        foreach: str | None = None,
        condition: str | None = None,
        num_parallel: int | None = None,
    ) -> None:
        """Go on to one step, to several at once, or to one step for each item of an artifact.

        With `condition`, the name of an artifact, the step goes on to one of several steps, given
        as a dict: the one whose key equals the artifact's value. That step may be an earlier one,
        or this one, and is then repeated.

        With `num_parallel`, the next step is a gang of so many tasks: see `parallel`.

        It is the last statement of a step, and a step calls it once; see
        `asyncflow.flow.graph_reader`.

        Raises:
            TransitionError: The call differs from the one in the source, it is the second one, the
                artifact of `foreach` or `condition` does not exist, or its value is no case, or
                `num_parallel` is no number of tasks.
        """
        state = self._asyncflow_task()
        if state is None:
            return
        node = state.graph[state.step]
        expected = node.transition
        if state.transition is not None:
            raise _misled(state, f"called self.next(...) twice, first as {state.transition}")
        written: list[Any] = [getattr(self, name) for name in node.next]
        if node.condition is not None:
            written = [{case: getattr(self, name) for case, name in node.cases}]
        is_gang = num_parallel is not None or node.num_parallel is not None
        if (list(steps), foreach, condition) != (written, node.foreach, node.condition) or (
            is_gang and node.num_parallel is None
        ):
            given = _as_given(steps, foreach, condition, num_parallel)
            message = (
                f"went on with {given}, but {expected} was read "
                f"from the source when the run started: has the file changed since?"
            )
            raise _misled(state, message)
        if is_gang:
            state.num_parallel = _gang_size(state, num_parallel)
        if foreach is not None:
            self._asyncflow_check_items(state, foreach)
        if condition is not None:
            state.choice = self._asyncflow_choose(state, condition)
        state.transition = expected

    @property
    def input(self) -> Any:
        """This task's item of the innermost foreach; None outside of any."""
        values = vars(self)
        if _INPUT not in values:
            state = self._asyncflow_task()
            return None if state is None else load_once(values, _INPUT, state.input)
        return values[_INPUT]

    @property
    def index(self) -> int | None:
        """The index of that item, from 0; None outside of any foreach."""
        state = self._asyncflow_task()
        return None if state is None else state.index

    def foreach_stack(self) -> list[tuple[int, int | None, Any]]:
        """Index, count and item of every foreach around this task, outermost first.

        While a foreach runs over a generator, its tasks do not know the count: it is None.
        """
        state = self._asyncflow_task()
        return [] if state is None else state.stack()

    def merge_artifacts(
        self,
        inputs: Iterable[InputView],
        exclude: Iterable[str] | None = None,
        include: Iterable[str] | None = None,
    ) -> None:
        """In a join, take over each artifact that is the same in all inputs that have it.

        Values are not read: two are the same if they were stored as the same bytes. Artifacts that
        the join already has are not replaced: those it has assigned or merged before, and those of
        the class.

        Args:
            inputs: The join's inputs, or some of them.
            exclude: Names of artifacts not to take over.
            include: Names of the only artifacts to take over.

        Raises:
            FlowError: This step is not a join.
            MergeArtifactsError: The inputs disagree, or no input has an artifact in `include`.
        """
        state = self._asyncflow_task()
        if state is None or not state.graph[state.step].is_join:
            step = "" if state is None else state.step
            message = "merge_artifacts is for joins: for steps that take `inputs`"
            raise FlowError(message, step=step)
        own = {*artifacts_of(self), *state.names()}
        merge = Merge(state.step, _names(include), _names(exclude), own)
        for name, ref in merge.run(inputs).items():
            state.adopt(name, ref)

    # --- attributes ---

    def __getattr__(self, name: str) -> Any:
        state = vars(self).get(_STATE)
        if state is not None and name in state.names():
            return self._asyncflow_load(name)
        if hasattr(type(self), name):  # a property failed: raise its own error
            return object.__getattribute__(self, name)
        if name == "name":  # in Metaflow the flow's name, unless an artifact has this name
            return type(self).__name__
        raise AttributeError(_missing(self, name), name=name)

    def __delattr__(self, name: str) -> None:
        state = self._asyncflow_task()
        inherited = state is not None and name in state.names()
        belongs_to_run = isinstance(_of_class(self, name), Parameter | _Constant)
        if name in vars(self) or not inherited or belongs_to_run:
            super().__delattr__(name)
        if state is not None and inherited:
            state.forget(name)

    def __dir__(self) -> list[str]:
        state = self._asyncflow_task()
        return sorted({*super().__dir__(), *(state.names() if state else ())})

    def __repr__(self) -> str:
        state = self._asyncflow_task()
        return f"<{type(self).__name__}{f' in step {state.step}' if state else ''}>"

    def __reduce_ex__(self, protocol: object) -> Any:
        message = (
            f"a flow cannot be pickled, but the code pickles {type(self).__name__!r} or one of its "
            f"methods: pass on the artifacts that are needed, not `self`"
        )
        raise TypeError(message)

    # --- behind them ---

    def _asyncflow_task(self) -> BoundTask | None:
        state: BoundTask | None = vars(self).get(_STATE)
        return state

    def _asyncflow_load(self, name: str) -> Any:
        values = vars(self)
        state: BoundTask = values[_STATE]
        # The loop's thread may delete it while another thread loads it.
        return load_once(values, name, lambda: state.load(name), lambda: name in state.names())

    def _asyncflow_parameter(self, parameter: Parameter[Any]) -> Any:
        name = parameter.attribute
        state = self._asyncflow_task()
        if state is not None and name in state.names():
            return self._asyncflow_load(name)
        if state is not None or parameter.required:
            message = f"parameter {name!r} has no value here: it gets one when a run is started"
            raise AttributeError(message, name=name)
        return parameter.default_value(ParameterContext(type(self).__name__, name, user_name()))

    def _asyncflow_check_items(self, state: BoundTask, name: str) -> None:
        values = vars(self)
        if name in values:
            check_items(state, name, values[name])
        elif name not in state.names() and not hasattr(type(self), name):
            message = (
                f"goes on with foreach={name!r}, but there is no self.{name}: assign it before"
            )
            raise _misled(state, message + _missing(self, name).hint)

    def _asyncflow_choose(self, state: BoundTask, name: str) -> str:
        """The step that the value of a condition leads to."""
        node = state.graph[state.step]
        try:
            value = getattr(self, name)
        except AttributeError:
            message = (
                f"goes on by condition={name!r}, but there is no self.{name}: assign it before"
            )
            raise _misled(state, message + _missing(self, name).hint) from None
        step = node.chosen(value)
        if step is None:
            cases = ", ".join(repr(case) for case, _ in node.cases)
            message = (
                f"goes on by condition={name!r}, but self.{name} is {reprlib.repr(value)}, "
                f"which is none of the cases: {cases}"
            )
            raise _misled(state, message)
        return step


def _as_given(
    steps: Sequence[Any], foreach: str | None, condition: str | None, num_parallel: object
) -> Transition:
    """A call of `self.next`, for a message."""
    if condition is not None and len(steps) == 1 and isinstance(steps[0], Mapping):
        cases = tuple((case, _name_of(step)) for case, step in steps[0].items())
        return Transition((), foreach, condition, cases)
    number = None if num_parallel is None else repr(num_parallel)
    return Transition(tuple(_name_of(step) for step in steps), foreach, num_parallel=number)


def _gang_size(state: BoundTask, number: Any) -> int:
    """How many tasks a gang has."""
    try:
        size = operator.index(number)
    except TypeError:
        size = 0
    if isinstance(number, bool) or not 1 <= size <= MOST_NODES:
        message = (
            f"goes on with num_parallel={reprlib.repr(number)}, but a gang has a number of tasks "
            f"from 1 to {MOST_NODES:,}"
        )
        raise _misled(state, message)
    return size


def _name_of(step: object) -> str:
    return getattr(step, "__name__", repr(step))


def check_items(state: BoundTask, name: str, value: object) -> None:
    """Refuse to fan out over a value that cannot be iterated.

    Raises:
        TransitionError: The value cannot be iterated; the message names the artifact and its type.
    """
    kind = type(value)  # an instance cannot make itself iterable
    if hasattr(kind, "__aiter__"):
        if state.graph[state.step].is_async:
            return
        message = (
            f"goes on with foreach={name!r}, but self.{name} is of type {kind.__name__!r}, which "
            f"only an async step can go through: make the step `async def {state.step}`"
        )
        raise _misled(state, message)
    if not (hasattr(kind, "__iter__") or hasattr(kind, "__getitem__")):
        message = (
            f"goes on with foreach={name!r}, but self.{name} has no items: it is of type "
            f"{kind.__name__!r}; assign a list or another iterable"
        )
        raise _misled(state, message)


def _misled(state: BoundTask, message: str) -> TransitionError:
    node = state.graph[state.step]
    text = f"step {state.step!r} {message}"
    return TransitionError(text, step=state.step, file=node.file, line=node.line)


def _of_class(instance: object, name: str) -> object:
    """The class attribute itself; a descriptor is not called."""
    for owner in type(instance).__mro__:
        if name in vars(owner):
            found: object = vars(owner)[name]
            return found
    return None


def _missing(instance: FlowSpec, name: str) -> MissingArtifact:
    state = instance._asyncflow_task()  # noqa: SLF001 - of this module
    known = [*artifacts_of(instance), *(state.names() if state else ())]
    graph, step = (state.graph, state.step) if state else (None, "")
    return MissingArtifact(type(instance), name, known, graph, step)


def _names(given: Iterable[str] | None) -> list[str]:
    return [given] if isinstance(given, str) else list(given or ())


# --- for the worker and the engine ------------------------------------------------------------

Flow = TypeVar("Flow", bound=FlowSpec)


def bind(cls: type[Flow], state: BoundTask) -> Flow:
    """Make the instance for one task, not yet initialized; its artifacts come from `state`."""
    flow: Flow = object.__new__(_overlay(cast("Any", cls)))
    vars(flow)[_STATE] = state
    return flow


def initialize(instance: FlowSpec) -> None:
    """Call the flow's own `__init__`, if it has one.

    Raises:
        Exception: Whatever the flow's `__init__` raises.
    """
    if type(instance).__init__ is not FlowSpec.__init__:
        instance.__init__()  # type: ignore[misc]  # each task has an instance of its own


def artifacts_of(instance: FlowSpec) -> dict[str, Any]:
    """The artifacts that a task has assigned or read; new and changed ones must be stored.

    Raises:
        ArtifactError: An artifact has a name that cannot be stored.
    """
    values = vars(instance)
    for name in values:
        if type(name) is not str or not name.isascii():
            _check_name(name)
    return {name: value for name, value in values.items() if not name.startswith((_OURS, "__"))}


def _check_name(name: object) -> None:
    if isinstance(name, str):
        try:
            name.encode()
        except UnicodeEncodeError:
            why = "its name holds half a surrogate pair, or a byte that is not UTF-8"
        else:
            return
    else:
        why = "its name is no text"
    message = f"an artifact cannot be called {name!r}: {why}; assign it to another name"
    raise ArtifactError(message)


def constants_of(cls: type[FlowSpec]) -> dict[str, Any]:
    """The class attributes that are artifacts; the docstring of this module defines which.

    Raises:
        ArtifactError: One has a name that cannot be stored.
    """
    for name in _values_of(cls):
        _check_name(name)
    return {name: value for name, value in _values_of(cls).items() if not name.startswith("_")}


def is_constant(cls: type, name: str) -> bool:
    """Whether the class has a constant of this name."""
    return not name.startswith("_") and name in _values_of(cls)


def _values_of(cls: type) -> dict[str, Any]:
    """The class attributes that are plain values, those with an underscore included."""
    found: dict[str, Any] = {}
    for owner in reversed(cls.__mro__):
        if owner is object or owner is FlowSpec:
            continue
        for name, value in vars(owner).items():
            if _is_value(name, value):
                found[name] = value
            else:
                found.pop(name, None)
    return found


def _is_value(name: str, value: object) -> bool:
    if name.startswith("__") or name == "_abc_impl":
        return False
    return not (isinstance(value, type | ModuleType) or hasattr(type(value), "__get__"))


class _Constant:
    """Stands for a constant in an instance: the task's own copy of the run's value."""

    __slots__ = ("_name", "_value")

    def __init__(self, name: str, value: object) -> None:
        self._name, self._value = name, value

    def __get__(self, instance: FlowSpec | None, owner: type[FlowSpec]) -> Any:
        if instance is None:
            return self._value
        values = vars(instance)
        if self._name in values:
            return values[self._name]
        state = instance._asyncflow_task()  # noqa: SLF001 - of this module
        if (
            state is None or self._name not in state.names()
        ):  # added to the flow's file since the run started
            return self._value
        return instance._asyncflow_load(self._name)  # noqa: SLF001 - of this module

    def __set__(self, instance: FlowSpec, value: object) -> None:
        message = (
            f"{self._name!r} is a constant of the class, the same in every task, and read-only: "
            f"assign to another name, or take it out of the class and assign it in `start`"
        )
        raise AttributeError(message)

    def __delete__(self, instance: FlowSpec) -> None:
        message = f"{self._name!r} is a constant of the class, and cannot be deleted"
        raise AttributeError(message)


class _Hidden:
    """Stands for a class attribute with an underscore, which is no artifact.

    An instance sees the class's value, unless a step has assigned another. Then that is an
    artifact.
    """

    __slots__ = ("_name", "_value")

    def __init__(self, name: str, value: object) -> None:
        self._name, self._value = name, value

    def __get__(self, instance: FlowSpec | None, owner: type[FlowSpec]) -> Any:
        state = None if instance is None else instance._asyncflow_task()  # noqa: SLF001 - of this module
        if instance is None or state is None or self._name not in state.names():
            return self._value
        return instance._asyncflow_load(self._name)  # noqa: SLF001 - of this module


class _Silent:
    """Keeps the user's `__init_subclass__` from being called for overlays."""

    __slots__ = ()

    def __init_subclass__(cls) -> None:
        pass


@functools.lru_cache(_KEPT_OVERLAYS)
def _overlay(cls: Any) -> Any:
    """A subclass that looks like the class, but whose values are not shared between tasks."""
    values = {
        name: (_Hidden if name.startswith("_") else _Constant)(name, value)
        for name, value in _values_of(cls).items()
    }
    namespace = {
        "__module__": cls.__module__,
        "__qualname__": cls.__qualname__,
        "__doc__": cls.__doc__,
        **values,
    }
    return type(cls)(cls.__name__, (_Silent, cls), namespace)


_launcher: Callable[[type[FlowSpec]], object] | None = None


def set_launcher(launcher: Callable[[type[FlowSpec]], object]) -> None:
    """Set what `MyFlow()` calls: the command line, which this floor must not import."""
    global _launcher  # noqa: PLW0603 - one for the process, set when asyncflow is imported
    _launcher = launcher


def _launch(cls: type[FlowSpec]) -> None:
    if _launcher is None:
        message = "there is no command line to run: import asyncflow, or use_cli=False"
        raise FlowError(message)
    if hasattr(sys, "ps1"):  # set once Python shows a prompt, in any kind of shell
        message = (
            f"making an instance would run the command line and end this session: write "
            f"`await asyncflow.run({cls.__name__})`, or `asyncflow.run_sync({cls.__name__})` where "
            f"no event loop is running, or `{cls.__name__}(use_cli=False)` to try its methods"
        )
        raise FlowError(message)
    _launcher(cls)
