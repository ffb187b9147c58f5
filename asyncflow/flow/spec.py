"""`FlowSpec`: the base class of a user's flow.

    class Greeting(FlowSpec):
        @step
        def start(self):
            self.words = ["good", "day"]
            self.next(self.end)

        @step
        def end(self):
            print(*self.words)

An attribute that a step assigns to `self` is an artifact; `asyncflow.flow.bound_task` says where it
is kept. Class attributes are artifacts as well: see `asyncflow.flow.constants`.

Parameters and constants belong to the run and are the same in all its tasks. They cannot be
assigned. Each task has its own copy: if it changes one in place, only that task sees the change.
`asyncflow.flow.task_instance` makes the instance of a task.
"""

from __future__ import annotations

import sys
from itertools import repeat
from typing import TYPE_CHECKING, Any

from asyncflow.errors import FlowError
from asyncflow.flow.bound_task import INPUT, STATE, artifacts_of, load_inherited, task_of
from asyncflow.flow.constants import Constant
from asyncflow.flow.join_inputs import Merge
from asyncflow.flow.missing_artifact import missing_from
from asyncflow.flow.parameters import Parameter, ParameterContext
from asyncflow.flow.transition_checks import as_given, check_foreach, chosen_step, gang_size, misled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from asyncflow.flow.bound_task import BoundTask
    from asyncflow.flow.join_inputs import InputView


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
        if use_cli and task_of(self) is None:  # a task calls an `__init__` of the flow's own
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
        state: BoundTask | None = self.__dict__.get(STATE)
        if state is None:
            return
        node = state.graph.nodes[state.step]
        expected = node.transition
        if state.transition is not None:
            raise misled(state, f"called self.next(...) twice, first as {state.transition}")
        written: list[Any] = [*map(getattr, repeat(self), node.next)]
        if node.condition is not None:
            written = [{case: getattr(self, name) for case, name in node.cases}]
        is_gang = num_parallel is not None or node.num_parallel is not None
        if (list(steps), foreach, condition) != (written, node.foreach, node.condition) or (
            is_gang and node.num_parallel is None
        ):
            given = as_given(steps, foreach, condition, num_parallel)
            message = (
                f"went on with {given}, but {expected} was read "
                f"from the source when the run started: has the file changed since?"
            )
            raise misled(state, message)
        if is_gang:
            state.num_parallel = gang_size(state, num_parallel)
        if foreach is not None:
            check_foreach(self, state, foreach)
        if condition is not None:
            state.choice = chosen_step(self, state, condition)
        state.transition = expected

    @property
    def input(self) -> Any:
        """This task's item of the innermost foreach; None outside of any."""
        values = self.__dict__
        if INPUT not in values:
            state: BoundTask | None = values.get(STATE)
            # Threads that ask at the same time may all load it; they get the same object.
            return None if state is None else values.setdefault(INPUT, state.input())
        return values[INPUT]

    @property
    def index(self) -> int | None:
        """The index of that item, from 0; None outside of any foreach."""
        state = task_of(self)
        return None if state is None else state.index

    def foreach_stack(self) -> list[tuple[int, int | None, Any]]:
        """Index, count and item of every foreach around this task, outermost first.

        While a foreach runs over a generator, its tasks do not know the count: it is None.
        """
        state = task_of(self)
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
        state = task_of(self)
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
        state = task_of(self)
        if state is not None and name in state.names():
            return load_inherited(self, name)
        if hasattr(type(self), name):  # a property failed: raise its own error
            return object.__getattribute__(self, name)
        if name == "name":  # in Metaflow the flow's name, unless an artifact has this name
            return type(self).__name__
        raise AttributeError(missing_from(self, name), name=name)

    def __delattr__(self, name: str) -> None:
        state = task_of(self)
        inherited = state is not None and name in state.names()
        belongs_to_run = isinstance(_of_class(self, name), Parameter | Constant)
        if name in vars(self) or not inherited or belongs_to_run:
            super().__delattr__(name)
        if state is not None and inherited:
            state.forget(name)

    def __dir__(self) -> list[str]:
        state = task_of(self)
        return sorted({*super().__dir__(), *(state.names() if state else ())})

    def __repr__(self) -> str:
        state = task_of(self)
        return f"<{type(self).__name__}{f' in step {state.step}' if state else ''}>"

    def __reduce_ex__(self, protocol: object) -> Any:
        message = (
            f"a flow cannot be pickled, but the code pickles {type(self).__name__!r} or one of its "
            f"methods: pass on the artifacts that are needed, not `self`"
        )
        raise TypeError(message)

    def _asyncflow_parameter(self, parameter: Parameter[Any]) -> Any:
        name = parameter.attribute
        state: BoundTask | None = self.__dict__.get(STATE)
        if state is not None and name in state.names():
            return load_inherited(self, name)
        if state is not None or parameter.required:
            message = f"parameter {name!r} has no value here: it gets one when a run is started"
            raise AttributeError(message, name=name)
        from asyncflow._support.user_name import user_name

        return parameter.default_value(ParameterContext(type(self).__name__, name, user_name()))


def _of_class(instance: object, name: str) -> object:
    """The class attribute itself; a descriptor is not called."""
    for owner in type(instance).__mro__:
        if name in vars(owner):
            found: object = vars(owner)[name]
            return found
    return None


def _names(given: Iterable[str] | None) -> list[str]:
    return [given] if isinstance(given, str) else list(given or ())


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
