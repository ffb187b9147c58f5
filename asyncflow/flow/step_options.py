"""What the decorators of a step record on its method.

The graph holds these options as plain data (`Node.options`), under the name of the decorator:

    retry        {"times", "seconds", "backoff", "max_seconds", "jitter", "on"}
    catch        {"var", "print_exception"}
    timeout      {"seconds"}
    isolate      True
    parallel     True
    concurrency  n
    limit        [[name, at a time or None, per second or None]]
    environment  [name, ...]; values are often secrets, so they stay in `StepOptions`
    secrets      [{"type", "id"}]; not their options, which may have values
    resources    {name: value}
    card         [{name: value}]    no effect
    own          [{"name", "args", "kwargs", "with"}]    the user's own, outermost first
"""

from __future__ import annotations

from dataclasses import field
from functools import wraps
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from asyncflow._quick_classes import NamedTuple, dataclass
from asyncflow.flow.decorator_arguments import mistake, plain_data
from asyncflow.flow.delayed_values import has_expression

if TYPE_CHECKING:
    from collections.abc import Callable

Method = TypeVar("Method", bound="Callable[..., Any]")
Decorator = TypeVar("Decorator", bound="Callable[..., Any]")

_ATTRIBUTE: Final = "__asyncflow_step__"
_OF_SECRETS: Final = frozenset({"environment", "secrets"})
"""Decorators whose arguments may be secrets; the engine alone needs them."""


class OwnDecorator(NamedTuple):
    """A decorator of the user's own, and the arguments with which it stands somewhere."""

    kind: type
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @property
    def full_name(self) -> str:
        """Its name, with its module."""
        return f"{self.kind.__module__}.{self.kind.__qualname__}"

    def evaluated(self, evaluate: Callable[[Any], Any]) -> OwnDecorator:
        """The decorator with its arguments evaluated by `evaluate`."""
        return OwnDecorator(self.kind, evaluate(self.args), evaluate(self.kwargs))


class DelayedCall(NamedTuple):
    """A decorator whose arguments depend on configurations, which have no values yet."""

    decorator: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


@dataclass(slots=True)
class StepOptions:
    """The options that the decorators of one method have set."""

    is_step: bool = False
    options: dict[str, Any] = field(default_factory=dict)
    retry_on: tuple[type[BaseException], ...] = ()
    """The exceptions that `@retry` retries; an empty tuple means all of them."""
    replaced_line: int = 0
    """The line at which the class body had already bound the step's name; 0 if it had not."""
    variables: dict[str, str] = field(default_factory=dict)
    """The environment variables that the step asks for, with their values."""
    secrets: list[dict[str, Any]] = field(default_factory=list)
    """The sources of `@secrets`: `type`, `id`, `options` and `role`."""
    secrets_override: bool = False
    """Whether they may replace variables."""
    is_start: bool = False
    """Whether `@step(start=True)` makes it the flow's first step."""
    is_end: bool = False
    """Whether `@step(end=True)` makes it the flow's last step."""
    own: list[OwnDecorator] = field(default_factory=list)
    """The decorators of the user's own, the innermost first."""
    mutators: list[OwnDecorator] = field(default_factory=list)
    """The mutators of the step, the innermost first."""
    named: list[dict[str, Any]] = field(default_factory=list)
    """The decorators of the user's own that the command line has put on the step, as plain data."""
    delayed: list[DelayedCall] = field(default_factory=list)
    """The decorators whose arguments depend on configurations."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Leave out variables and secrets: a class is stored with its run."""
        kept = self.is_step, self.options, self.retry_on, self.replaced_line
        delayed = [call for call in self.delayed if call.decorator.__name__ not in _OF_SECRETS]
        rest = self.is_start, self.is_end, self.own, self.mutators, self.named, delayed
        return StepOptions, (*kept, {}, [], False, *rest)


def options_of(method: object) -> StepOptions | None:
    """The options of a method; None if it has none of our decorators."""
    found = getattr(method, _ATTRIBUTE, None)
    return found if isinstance(found, StepOptions) else None


def set_options(method: object, options: StepOptions) -> None:
    """Give a method these options, and no others."""
    setattr(method, _ATTRIBUTE, options)


def plain_options(options: StepOptions) -> dict[str, Any]:
    """The options as the graph holds them."""
    own = [
        {
            "name": each.full_name,
            "args": plain_data(each.args),
            "kwargs": plain_data(each.kwargs),
            "with": "",  # for one from the command line: its name there
        }
        for each in reversed(options.own)
    ]
    if not own and not options.named:
        return dict(options.options)
    return {**options.options, "own": [*options.named, *own]}


def is_step(method: object) -> bool:
    """Whether a method is under `@step`."""
    options = options_of(method)
    return options is not None and options.is_step


def delayed_on_step(decorator: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What to decorate a step with if these arguments depend on configurations; else None.

    The decorator is applied once they have values: see `asyncflow.flow.configuration`.
    """
    if not has_expression((args, kwargs)):
        return None
    call = DelayedCall(decorator, args, kwargs)

    def decorate(method: Method) -> Method:
        ensure_options(method, decorator.__name__).delayed.append(call)
        return method

    return decorate


def takes_configs(decorator: Decorator) -> Decorator:
    """Have a decorator of steps wait for the configurations that its arguments depend on."""

    @wraps(decorator)
    def decorate(*args: Any, **kwargs: Any) -> Any:
        return delayed_on_step(decorate, args, kwargs) or decorator(*args, **kwargs)

    return cast("Decorator", decorate)


# --- for decorators ---------------------------------------------------------------------------


def ensure_options(function: Any, name: str) -> StepOptions:
    """The options of a method, for a decorator of this name to add to; made if there are none.

    Raises:
        FlowError: It is no method.
    """
    options = options_of(function)
    if options is not None:
        return options
    if not callable(function) or isinstance(function, type):
        message = f"@{name} decorates a method of a flow, not {function!r}"
        raise mistake(message)
    options = StepOptions()
    try:
        setattr(function, _ATTRIBUTE, options)
    except AttributeError:
        message = f"@{name} decorates a method written with `def`, not {function!r}"
        raise mistake(message) from None
    return options


def note(function: Any, name: str, value: Any) -> None:
    """Record this value, which is plain data, for a method under this name.

    Raises:
        FlowError: It is no method, or has a decorator of this name already.
    """
    options = ensure_options(function, name).options
    if name in options:
        where = getattr(function, "__qualname__", repr(function))
        message = f"@{name} is used twice on {where}: remove one of them"
        raise mistake(message)
    options[name] = value


def record(name: str, value: Any) -> Callable[[Method], Method]:
    """A decorator that records this value, which is plain data, under this name."""

    def decorate(function: Method) -> Method:
        note(function, name, value)
        return function

    return decorate


def apply(name: str, method: Any, decorate: Callable[[Any], Any]) -> Any:
    """The decorator, or the decorated method if it was used without parentheses."""
    if method is None:
        return decorate
    if not callable(method):
        message = f"@{name} takes its arguments by name, not {method!r}"
        raise mistake(message)
    return decorate(method)
