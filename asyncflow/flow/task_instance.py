"""The instance of a flow that a worker makes for one task.

Its class looks like the flow, but the values of the class are not shared between tasks: if a task
changes one in place, only that task sees the change.
"""

from __future__ import annotations

import functools
from typing import Any, Final, TypeVar

from asyncflow.flow.bound_task import STATE, BoundTask, load_inherited, task_of
from asyncflow.flow.constants import Constant, values_of
from asyncflow.flow.lookalike import lookalike
from asyncflow.flow.spec import FlowSpec

_KEPT_OVERLAYS: Final = 64  # for the flow classes used last; a worker has a handful

Flow = TypeVar("Flow", bound=FlowSpec)


def bind(cls: type[Flow], state: BoundTask) -> Flow:
    """Make the instance for one task, not yet initialized; its artifacts come from `state`."""
    flow: Flow = object.__new__(instance_class(cls))
    flow.__dict__[STATE] = state
    return flow


def instance_class(cls: type[Flow]) -> type[Flow]:
    """The class of the instances that `bind` makes."""
    own: Any = cls
    made: type[Flow] = _overlay(own)
    return made


def initialize(instance: FlowSpec) -> None:
    """Call the flow's own `__init__`, if it has one.

    Raises:
        Exception: Whatever the flow's `__init__` raises.
    """
    if type(instance).__init__ is not FlowSpec.__init__:
        instance.__init__()  # type: ignore[misc]  # each task has an instance of its own


class _Hidden:
    """Stands for a class attribute with an underscore, which is no artifact.

    An instance sees the class's value, unless a step has assigned another. Then that is an
    artifact.
    """

    __slots__ = ("_name", "_value")

    def __init__(self, name: str, value: object) -> None:
        self._name, self._value = name, value

    def __get__(self, instance: object, owner: type) -> Any:
        state = None if instance is None else task_of(instance)
        if instance is None or state is None or self._name not in state.names():
            return self._value
        return load_inherited(instance, self._name)


@functools.lru_cache(_KEPT_OVERLAYS)
def _overlay(cls: Any) -> Any:
    """A subclass that looks like the class, but whose values are not shared between tasks."""
    values = {
        name: (_Hidden if name.startswith("_") else Constant)(name, value)
        for name, value in values_of(cls).items()
    }
    return lookalike(cls, values)
