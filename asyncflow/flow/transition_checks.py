"""Checks what a step's `self.next(...)` goes on with: the call itself, and the artifacts in it."""

from __future__ import annotations

import operator
import reprlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from asyncflow.errors import TransitionError
from asyncflow.flow.missing_artifact import missing_from
from asyncflow.flow.node import Transition
from asyncflow.values import MOST_NODES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncflow.flow.bound_task import BoundTask


def as_given(
    steps: Sequence[Any], foreach: str | None, condition: str | None, num_parallel: object
) -> Transition:
    """A call of `self.next`, for a message."""
    if condition is not None and len(steps) == 1 and isinstance(steps[0], Mapping):
        cases = tuple((case, _name_of(step)) for case, step in steps[0].items())
        return Transition((), foreach, condition, cases)
    number = None if num_parallel is None else repr(num_parallel)
    return Transition(tuple(_name_of(step) for step in steps), foreach, num_parallel=number)


def gang_size(state: BoundTask, number: Any) -> int:
    """How many tasks a gang has.

    Raises:
        TransitionError: It is no number of tasks that a gang can have.
    """
    try:
        size = operator.index(number)
    except TypeError:
        size = 0
    if isinstance(number, bool) or not 1 <= size <= MOST_NODES:
        message = (
            f"goes on with num_parallel={reprlib.repr(number)}, but a gang has a number of tasks "
            f"from 1 to {MOST_NODES:,}"
        )
        raise misled(state, message)
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
        raise misled(state, message)
    if not (hasattr(kind, "__iter__") or hasattr(kind, "__getitem__")):
        message = (
            f"goes on with foreach={name!r}, but self.{name} has no items: it is of type "
            f"{kind.__name__!r}; assign a list or another iterable"
        )
        raise misled(state, message)


def misled(state: BoundTask, message: str) -> TransitionError:
    """The error of a step that goes on in a wrong way, with the step's name, file and line."""
    node = state.graph[state.step]
    text = f"step {state.step!r} {message}"
    return TransitionError(text, step=state.step, file=node.file, line=node.line)


def check_foreach(instance: object, state: BoundTask, name: str) -> None:
    """Refuse to fan out over an artifact that does not exist, or that cannot be iterated.

    One that is not read yet is checked when it is.

    Raises:
        TransitionError: It says which of the two.
    """
    values = vars(instance)
    if name in values:
        check_items(state, name, values[name])
    elif name not in state.names() and not hasattr(type(instance), name):
        message = f"goes on with foreach={name!r}, but there is no self.{name}: assign it before"
        raise misled(state, message + missing_from(instance, name).hint)


def chosen_step(instance: object, state: BoundTask, name: str) -> str:
    """The step that the value of a condition leads to.

    Raises:
        TransitionError: There is no such artifact, or its value is none of the cases.
    """
    node = state.graph[state.step]
    try:
        value = getattr(instance, name)
    except AttributeError:
        message = f"goes on by condition={name!r}, but there is no self.{name}: assign it before"
        raise misled(state, message + missing_from(instance, name).hint) from None
    step = node.chosen(value)
    if step is None:
        cases = ", ".join(repr(case) for case, _ in node.cases)
        message = (
            f"goes on by condition={name!r}, but self.{name} is {reprlib.repr(value)}, "
            f"which is none of the cases: {cases}"
        )
        raise misled(state, message)
    return step
