"""Constants: the class attributes of a flow that are artifacts.

Methods and other descriptors, classes, modules, parameters and names that begin with an underscore
are not. A constant belongs to the run and is the same in all its tasks.
"""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

from asyncflow.flow.bound_task import check_name, load_inherited, task_of

if TYPE_CHECKING:
    from collections.abc import Iterator

_BASE_MODULE: Final = "asyncflow.flow.spec"  # where `FlowSpec` is


def written_classes(cls: type) -> Iterator[type]:
    """The classes that the user wrote, base classes first."""
    return (
        owner
        for owner in reversed(cls.__mro__)
        if owner is not object and owner.__module__ != _BASE_MODULE
    )


def constants_of(cls: type) -> dict[str, Any]:
    """The class attributes that are artifacts; see the docstring of this module.

    Raises:
        ArtifactError: One has a name that cannot be stored.
    """
    for name in values_of(cls):
        check_name(name)
    return {name: value for name, value in values_of(cls).items() if not name.startswith("_")}


def is_constant(cls: type, name: str) -> bool:
    """Whether the class has a constant of this name."""
    return not name.startswith("_") and name in values_of(cls)


def values_of(cls: type) -> dict[str, Any]:
    """The class attributes that are plain values, those with an underscore included."""
    found: dict[str, Any] = {}
    for owner in written_classes(cls):
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


class Constant:
    """Stands for a constant in an instance: the task's own copy of the run's value."""

    __slots__ = ("_name", "_value")

    def __init__(self, name: str, value: object) -> None:
        self._name, self._value = name, value

    def __get__(self, instance: object, owner: type) -> Any:
        if instance is None:
            return self._value
        values = vars(instance)
        if self._name in values:
            return values[self._name]
        state = task_of(instance)
        if (
            state is None or self._name not in state.names()
        ):  # added to the flow's file since the run started
            return self._value
        return load_inherited(instance, self._name)

    def __set__(self, instance: object, value: object) -> None:
        message = (
            f"{self._name!r} is a constant of the class, the same in every task, and read-only: "
            f"assign to another name, or take it out of the class and assign it in `start`"
        )
        raise AttributeError(message)

    def __delete__(self, instance: object) -> None:
        message = f"{self._name!r} is a constant of the class, and cannot be deleted"
        raise AttributeError(message)
