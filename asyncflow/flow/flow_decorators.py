"""Decorators of a flow class: what they record, and where.

A decorator of a flow changes nothing in the class. It records its arguments in an attribute of the
class, and the graph holds them as plain data (`Graph.options`), under the name of the decorator. A
flow has the decorators of its base classes, too; its own replace those of the same name.
"""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING, Any, Final, TypeVar

from asyncflow._quick_classes import dataclass
from asyncflow.flow.decorator_arguments import mistake
from asyncflow.flow.delayed_values import has_expression
from asyncflow.flow.step_options import DelayedCall, options_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from asyncflow.flow.step_options import OwnDecorator

FlowClass = TypeVar("FlowClass", bound=type)

_ATTRIBUTE: Final = "__asyncflow_flow__"


@dataclass(slots=True)
class FlowOptions:
    """What the decorators of one class have recorded, without those of its base classes."""

    options: dict[str, Any] = field(default_factory=dict)
    """Plain data, which the graph holds; None where the one of a base class is taken away."""
    hooks: Mapping[str, tuple[Callable[..., object], ...]] = field(default_factory=dict)
    """The functions of `@exit_hook`, by when they are called."""
    mutators: list[OwnDecorator] = field(default_factory=list)
    """The mutators of the flow, the innermost first."""
    delayed: list[DelayedCall] = field(default_factory=list)
    """The decorators whose arguments depend on configurations."""


def flow_options_of(cls: type) -> dict[str, Any]:
    """The options of a flow, with those of its base classes, as plain data."""
    found: dict[str, Any] = {}
    for owner in reversed(cls.__mro__):
        own = vars(owner).get(_ATTRIBUTE)
        if isinstance(own, FlowOptions):
            found |= own.options
    return {name: value for name, value in found.items() if value is not None}


def flow_mutators_of(cls: type) -> list[OwnDecorator]:
    """The mutators of a flow: those of its base classes first, then the outermost first."""
    found: list[OwnDecorator] = []
    for owner in reversed(cls.__mro__):
        own = vars(owner).get(_ATTRIBUTE)
        if isinstance(own, FlowOptions):
            found += reversed(own.mutators)
    return found


def exit_hooks_of(cls: type) -> Mapping[str, tuple[Callable[..., object], ...]]:
    """The functions of a flow's `@exit_hook`, by when they are called."""
    for owner in cls.__mro__:
        own = vars(owner).get(_ATTRIBUTE)
        if isinstance(own, FlowOptions) and own.hooks:
            return own.hooks
    return {}


def delayed_of(cls: type) -> list[DelayedCall]:
    """The decorators of a flow whose arguments depend on configurations, each name once."""
    found: dict[str, DelayedCall] = {}
    for owner in reversed(cls.__mro__):
        own = vars(owner).get(_ATTRIBUTE)
        if isinstance(own, FlowOptions):
            found |= {call.decorator.__name__: call for call in own.delayed}
    return list(found.values())


def delayed_on_flow(decorator: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What to decorate a flow with if these arguments depend on configurations; else None."""
    if not has_expression((args, kwargs)):
        return None
    call = DelayedCall(decorator, args, kwargs)

    def decorate(cls: FlowClass) -> FlowClass:
        own_options(cls, decorator.__name__).delayed.append(call)
        return cls

    return decorate


def has_mutators(cls: type) -> bool:
    """Whether a mutator stands on a flow, on one of its base classes or on a step of them."""
    for owner in cls.__mro__:
        own = vars(owner).get(_ATTRIBUTE)
        if isinstance(own, FlowOptions) and own.mutators:
            return True
        options = (options_of(value) for value in vars(owner).values())
        if any(each is not None and each.mutators for each in options):
            return True
    return False


def own_options(cls: object, decorator: str) -> FlowOptions:
    """What is recorded for this very class; made if there is nothing yet.

    Raises:
        FlowError: It is no class.
    """
    if not isinstance(cls, type):
        message = f"@{decorator} decorates a flow, a class that extends FlowSpec, not {cls!r}"
        raise mistake(message)
    own = vars(cls).get(_ATTRIBUTE)
    if not isinstance(own, FlowOptions):
        own = FlowOptions()
        setattr(cls, _ATTRIBUTE, own)
    return own


def note_on_flow(name: str, value: Any) -> Callable[[FlowClass], FlowClass]:
    """A decorator of classes that records this value, which is plain data, under this name.

    Raises:
        FlowError: The class has a decorator of this name already, or is no class.
    """

    def decorate(cls: FlowClass) -> FlowClass:
        options = own_options(cls, name).options
        if name in options:
            message = f"@{name} is used twice on {cls.__qualname__}: remove one of them"
            raise mistake(message)
        options[name] = value
        return cls

    return decorate
