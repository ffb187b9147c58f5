"""`@step`, and the decorators that set how a step is run.

A decorator runs nothing and wraps nothing. It records its arguments on the function and returns the
same function, so decorators may stand in any order and a step remains an ordinary method. The graph
holds these options as plain data (`Node.options`), under the name of the decorator:

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

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar, cast, overload

from asyncflow._support.call_site import calling_line
from asyncflow._support.safe_text import storable_text
from asyncflow.errors import FlowError
from asyncflow.flow.delayed_values import has_expression
from asyncflow.values import LEAST_PER_SECOND, LIMIT_NAME, MOST_AT_ONCE, MOST_PER_SECOND

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Method = TypeVar("Method", bound="Callable[..., Any]")
Decorator = TypeVar("Decorator", bound="Callable[..., Any]")

_ATTRIBUTE: Final = "__asyncflow_step__"
_OF_SECRETS: Final = frozenset({"environment", "secrets"})
"""Decorators whose arguments may be secrets; the engine alone needs them."""
_ON_BYTES: Final = 1 << 10  # of the name of an exception


class OwnDecorator(NamedTuple):
    """A decorator of the user's own, and the arguments with which it stands somewhere."""

    kind: type
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


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
            "name": f"{each.kind.__module__}.{each.kind.__qualname__}",
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


# --- step -------------------------------------------------------------------------------------


@overload
def step(method: Method, /) -> Method: ...
@overload
def step(*, start: bool = False, end: bool = False) -> Callable[[Method], Method]: ...
def step(method: Any = None, /, *, start: bool = False, end: bool = False) -> Any:
    """Make a method, `def` or `async def`, a step of its flow.

    A step takes only `self`. A second argument, usually called `inputs`, makes it a join.

    Args:
        method: The step, if the decorator is used without parentheses.
        start: The flow begins with this step; else it begins with the one named `start`.
        end: The flow ends with this step; else it ends with the one named `end`.
    """
    if method is None:
        return partial(step, start=start, end=end)
    options = ensure_options(method, "step")
    options.is_step = True
    options.is_start, options.is_end = bool(start), bool(end)
    options.replaced_line = _line_of_namesake(getattr(method, "__name__", ""))
    return method


def _line_of_namesake(name: str) -> int:
    """The line at which the running class body has already bound this name; 0 if it has not."""
    import sys  # only needed here, and built in

    body = sys._getframe(2)  # noqa: SLF001 - once the class exists, the first binding is lost
    if "__qualname__" not in body.f_locals or name not in body.f_locals:
        return 0
    code = getattr(body.f_locals[name], "__code__", None)
    return code.co_firstlineno if code is not None else body.f_code.co_firstlineno


# --- how a step is run ------------------------------------------------------------------------


@overload
def retry(method: Method, /) -> Method: ...
@overload
def retry(
    *,
    times: int = 3,
    minutes_between_retries: float | None = None,
    seconds: float | None = None,
    backoff: float = 1.0,
    max_seconds: float | None = None,
    jitter: float = 0.0,
    on: type[BaseException] | Iterable[type[BaseException]] | None = None,
) -> Callable[[Method], Method]: ...
@takes_configs
def retry(
    method: Any = None,
    /,
    *,
    times: int = 3,
    minutes_between_retries: float | None = None,
    seconds: float | None = None,
    backoff: float = 1.0,
    max_seconds: float | None = None,
    jitter: float = 0.0,
    on: type[BaseException] | Iterable[type[BaseException]] | None = None,
) -> Any:
    """Try a failed task again.

    Args:
        method: The step, if the decorator is used without parentheses.
        times: The most retries after the first attempt.
        minutes_between_retries: The wait before a retry; none by default.
        seconds: The same wait in seconds. Give one of the two at most.
        backoff: The factor by which each wait is longer than the one before; 2.0 doubles it.
        max_seconds: The longest wait.
        jitter: Each wait is randomly longer or shorter by up to this fraction, 0.0 to 1.0.
        on: Retry only after these exceptions and their subclasses; after any if left out.

    Raises:
        FlowError: A value makes no sense.
    """
    exceptions = _exceptions(on)
    if seconds is minutes_between_retries is None and (backoff != 1 or jitter):
        message = (
            "@retry has `backoff` or `jitter`, but no wait for them to change: give the first "
            "wait, as in @retry(seconds=1, backoff=2)"
        )
        raise mistake(message)
    options = {
        "times": _count("retry", "times", times, least=0),
        "seconds": _wait(minutes_between_retries, seconds),
        "backoff": _number("retry", "backoff", backoff),
        "max_seconds": None
        if max_seconds is None
        else _number("retry", "max_seconds", max_seconds),
        "jitter": _number("retry", "jitter", jitter, most=1.0),
        "on": [
            storable_text(f"{each.__module__}.{each.__qualname__}", _ON_BYTES)
            for each in exceptions
        ],
    }

    def decorate(function: Method) -> Method:
        _note(function, "retry", options)
        ensure_options(function, "retry").retry_on = exceptions
        return function

    return apply("retry", method, decorate)


def _wait(minutes: float | None, seconds: float | None) -> float:
    if seconds is None:
        return 60.0 * _number("retry", "minutes_between_retries", minutes or 0.0)
    if minutes is not None:
        message = "@retry takes `minutes_between_retries` or `seconds`, not both: remove one"
        raise mistake(message)
    return _number("retry", "seconds", seconds)


def _exceptions(on: Any) -> tuple[type[BaseException], ...]:
    if on is None:
        return ()
    given = tuple(on) if hasattr(on, "__iter__") and not isinstance(on, type | str) else (on,)
    if not given:
        message = "@retry takes at least one exception class as `on`; leave it out for any"
        raise mistake(message)
    for each in given:
        if not (isinstance(each, type) and issubclass(each, BaseException)):
            message = f"@retry takes exception classes as `on`, not {each!r}"
            raise mistake(message)
    return given


@overload
def catch(method: Method, /) -> Method: ...
@overload
def catch(
    *, var: str | None = None, print_exception: bool = True
) -> Callable[[Method], Method]: ...
@takes_configs
def catch(method: Any = None, /, *, var: str | None = None, print_exception: bool = True) -> Any:
    """Let the run go on when a task has failed and is not retried any more.

    Args:
        method: The step, if the decorator is used without parentheses.
        var: The artifact that holds the exception; it is None if the task did not fail.
        print_exception: Whether the traceback is printed to the task's log.

    Raises:
        FlowError: `var` cannot be the name of an artifact.
    """
    options = {"var": _artifact_name(var), "print_exception": bool(print_exception)}
    return apply("catch", method, record("catch", options))


def _artifact_name(var: Any) -> str | None:
    if var is None or (isinstance(var, str) and var.isidentifier()):
        return var
    message = f"@catch takes the name of an artifact as `var`, not {var!r}"
    raise mistake(message)


@takes_configs
def timeout(
    nothing: object = None, /, *, seconds: float = 0, minutes: float = 0, hours: float = 0
) -> Callable[[Method], Method]:
    """Stop an attempt that takes longer than this; it counts as failed.

    Raises:
        FlowError: The time is not above zero, or was not given by keyword.
    """
    if nothing is not None and not callable(nothing):
        message = f"@timeout takes its time by name, as in @timeout(minutes=5), not {nothing!r}"
        raise mistake(message)
    parts = {"seconds": seconds, "minutes": minutes, "hours": hours}
    checked = {name: _number("timeout", name, value) for name, value in parts.items()}
    total = checked["seconds"] + 60 * checked["minutes"] + 3600 * checked["hours"]
    if nothing is not None or not total:
        message = "@timeout takes a time above zero, as in @timeout(minutes=5)"
        raise mistake(message)
    return record("timeout", {"seconds": total})


@overload
def isolate(method: Method, /) -> Method: ...
@overload
def isolate() -> Callable[[Method], Method]: ...
def isolate(method: Any = None, /) -> Any:
    """Run each task of the step in a process of its own, which ends with the task."""
    return apply("isolate", method, record("isolate", True))  # noqa: FBT003 - the value itself


@overload
def parallel(method: Method, /) -> Method: ...
@overload
def parallel() -> Callable[[Method], Method]: ...
def parallel(method: Any = None, /) -> Any:
    """Make the tasks of the step the nodes of a gang, which start together and end together.

    The step before says how many there are: `self.next(self.train, num_parallel=4)`. The step after
    is a join. In a node, `current.parallel` says which node it is, and of how many.

    If a node fails, the others are stopped; `@retry` tries all of them again.
    """
    return apply("parallel", method, record("parallel", True))  # noqa: FBT003 - the value itself


@takes_configs
def concurrency(n: int, /) -> Callable[[Method], Method]:
    """Run at most `n` tasks of the step at once in each run; the default is 1,000.

    Raises:
        FlowError: `n` is not a whole number above zero.
    """
    if callable(n):
        message = "@concurrency takes a number, as in @concurrency(4)"
        raise mistake(message)
    return record("concurrency", _count("concurrency", "n", n, least=1))


@takes_configs
def limit(
    name: str, at_once: int | None = None, /, *, per_second: float | None = None
) -> Callable[[Method], Method]:
    """Apply a limit to the step's tasks that all runs in a store share, in any program.

    A task holds the limit from the start of an attempt to its end. `asyncflow limit set` changes
    the limit while runs go on. A step may have several limits; a task starts when all allow it.

    Args:
        name: The limit's name: letters, digits, `_`, `-` and `.`.
        at_once: How many tasks may run at a time; one if `per_second` is not given either.
        per_second: How many tasks may start in a second; starts are evenly spaced.

    Raises:
        FlowError: A value makes no sense.
    """
    given: Any = name
    if not (isinstance(given, str) and LIMIT_NAME.fullmatch(name)):
        message = '@limit takes a name of letters and digits, as in @limit("api", 5)'
        if not callable(given):  # else it stands without parentheses
            message += f", not {given!r}"
        raise mistake(message)
    if at_once is not None:
        if _count("limit", "at_once", at_once, least=1) > MOST_AT_ONCE:
            message = f"@limit takes up to {MOST_AT_ONCE} as `at_once`, not {at_once!r}"
            raise mistake(message)
    elif per_second is None:
        at_once = 1
    if per_second is not None:
        rate = _number("limit", "per_second", per_second, most=MOST_PER_SECOND)
        if rate < LEAST_PER_SECOND:
            message = (
                f"@limit takes a number above zero as `per_second`, {LEAST_PER_SECOND:g} or more, "
                f"not {per_second!r}"
            )
            raise mistake(message)

    def decorate(function: Method) -> Method:
        limits = ensure_options(function, "limit").options.setdefault("limit", [])
        if any(each[0] == name for each in limits):
            where = getattr(function, "__qualname__", repr(function))
            message = f'@limit("{name}") is used twice on {where}: remove one of them'
            raise mistake(message)
        limits.append([name, at_once, None if per_second is None else float(per_second)])
        return function

    return decorate


@takes_configs
def environment(
    nothing: object = None,
    /,
    *,
    vars: Mapping[str, object] | None = None,  # noqa: A002 - Metaflow's
) -> Callable[[Method], Method]:
    """Set environment variables while a task of the step runs.

    Each value is set as its text: `{"N": 3}` sets N to "3". Values go from
    this program to its workers and are never written to the store; events, journal and client hold
    only the names.

    Variables belong to a process, and async tasks share one. So an `async def` step needs
    `@isolate` too; without it, its flow is refused before it runs.

    Raises:
        FlowError: A name or a value cannot be used for an environment variable.
    """
    if nothing is not None or not isinstance(vars, Mapping):
        message = '@environment takes variables, as in @environment(vars={"NAME": "value"})'
        raise mistake(message)
    variables = dict(_variable(name, value) for name, value in vars.items())

    def decorate(function: Method) -> Method:
        _note(function, "environment", list(variables))
        ensure_options(function, "environment").variables = variables
        return function

    return decorate


def _variable(name: Any, value: object) -> tuple[str, str]:
    if not isinstance(name, str) or not name or "=" in name or not is_storable(name):
        message = f"@environment: {name!r} cannot be the name of a variable"
        raise mistake(message)
    if isinstance(value, bytes) or not is_storable(str(value)):
        message = f"@environment takes UTF-8 text without a NUL, which the value of {name} is not"
        raise mistake(message)
    return name, str(value)


def is_storable(text: str) -> bool:
    """Whether this can be the name or the value of an environment variable."""
    return "\0" not in text and storable_text(text, len(text) * 4) == text


@overload
def resources(method: Method, /) -> Method: ...
@overload
def resources(**amounts: object) -> Callable[[Method], Method]: ...
@takes_configs
def resources(method: Any = None, /, **amounts: object) -> Any:
    """State what each task of the step needs: tasks that do not fit together do not run together.

    An engine counts what the tasks of its runs have asked for. A task that needs more than is free
    waits; one that needs more than there is runs while no other task under `@resources` does.
    Nothing enforces that a task uses no more. What is not named is not counted.

    Args:
        method: The step, if the decorator is used without parentheses.
        amounts: `cpu`, `gpu` and `memory` (in MB) are numbers, or texts of numbers. Others, such as
            `disk` and `shared_memory`, are recorded, without effect.

    Raises:
        FlowError: An amount is negative, or no number.
    """
    for name in ("cpu", "gpu", "memory"):
        _check_amount(name, amounts.get(name))
    return apply("resources", method, record("resources", plain_data(amounts)))


def _check_amount(name: str, value: object) -> None:
    if value is None or not isinstance(value, bool | int | float | str):
        return
    try:
        amount = math.nan if isinstance(value, bool) else float(value)
    except ValueError:
        amount = math.nan
    if not 0 <= amount < math.inf:
        message = f"@resources takes a number as `{name}`, zero or more, not {value!r}"
        raise mistake(message)


# --- without effect on one machine ------------------------------------------------------------


@overload
def card(method: Method, /) -> Method: ...
@overload
def card(**attributes: object) -> Callable[[Method], Method]: ...
@takes_configs
def card(method: Any = None, /, **attributes: object) -> Any:
    """Do nothing: it is accepted and recorded so that a flow written for Metaflow runs."""

    def decorate(function: Method) -> Method:
        ensure_options(function, "card").options.setdefault("card", []).append(
            plain_data(attributes)
        )
        return function

    return apply("card", method, decorate)


# --- how it works -----------------------------------------------------------------------------


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


def _note(function: Any, name: str, value: Any) -> None:
    options = ensure_options(function, name).options
    if name in options:
        where = getattr(function, "__qualname__", repr(function))
        message = f"@{name} is used twice on {where}: remove one of them"
        raise mistake(message)
    options[name] = value


def record(name: str, value: Any) -> Callable[[Method], Method]:
    """A decorator that records this value, which is plain data, under this name."""

    def decorate(function: Method) -> Method:
        _note(function, name, value)
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


def mistake(message: str) -> FlowError:
    """The error of a decorator, with the file and the line of the decorator."""
    file, line = calling_line()
    return FlowError(message, file=file, line=line)


def _number(decorator: str, name: str, value: Any, *, most: float = math.inf) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (is_number and 0 <= value <= most and math.isfinite(value)):
        limits = "zero or more" if most == math.inf else f"from 0 to {most:g}"
        message = f"@{decorator} takes a number as `{name}`, {limits}, not {value!r}"
        raise mistake(message)
    return float(value)


def _count(decorator: str, name: str, value: Any, *, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        message = f"@{decorator} takes a whole number as `{name}`, {least} or more, not {value!r}"
        raise mistake(message)
    return value


def plain_data(value: Any) -> Any:
    """The value in types that msgpack can pack; any other type as its `repr`."""
    match value:
        case dict():
            return {str(key): plain_data(each) for key, each in value.items()}
        case list() | tuple():
            return [plain_data(each) for each in value]
        case None | bool() | float() | str() | bytes():
            return value
        case int() if -(1 << 63) <= value < 1 << 64:
            return value
        case _:
            return repr(value)
