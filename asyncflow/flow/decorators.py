"""`@step`, and the decorators that set how a step is run.

A decorator runs nothing and wraps nothing. It records its arguments on the function and returns the
same function, so decorators may stand in any order and a step remains an ordinary method.
`asyncflow.flow.step_options` says what is recorded.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final, overload

from asyncflow._support.safe_text import storable_text
from asyncflow.card_content.options import ID_CHARACTERS
from asyncflow.flow.decorator_arguments import (
    count,
    is_storable,
    is_variable_name,
    mistake,
    number,
    plain_data,
)
from asyncflow.flow.step_options import (
    DelayedCall,
    Method,
    OwnDecorator,
    StepOptions,
    apply,
    ensure_options,
    note,
    record,
    takes_configs,
)
from asyncflow.values import LEAST_PER_SECOND, LIMIT_NAME, MOST_AT_ONCE, MOST_PER_SECOND

if TYPE_CHECKING:
    import builtins
    from collections.abc import Callable, Iterable

__all__ = [
    # Classes of flows that earlier versions have stored name these three here.
    "DelayedCall",
    "OwnDecorator",
    "StepOptions",
    "card",
    "catch",
    "concurrency",
    "environment",
    "isolate",
    "limit",
    "parallel",
    "resources",
    "retry",
    "step",
    "timeout",
]

_ON_BYTES: Final = 1 << 10  # of the name of an exception


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
        "times": count("retry", "times", times, least=0),
        "seconds": _wait(minutes_between_retries, seconds),
        "backoff": number("retry", "backoff", backoff),
        "max_seconds": None if max_seconds is None else number("retry", "max_seconds", max_seconds),
        "jitter": number("retry", "jitter", jitter, most=1.0),
        "on": [
            storable_text(f"{each.__module__}.{each.__qualname__}", _ON_BYTES)
            for each in exceptions
        ],
    }

    def decorate(function: Method) -> Method:
        note(function, "retry", options)
        ensure_options(function, "retry").retry_on = exceptions
        return function

    return apply("retry", method, decorate)


def _wait(minutes: float | None, seconds: float | None) -> float:
    if seconds is None:
        return 60.0 * number("retry", "minutes_between_retries", minutes or 0.0)
    if minutes is not None:
        message = "@retry takes `minutes_between_retries` or `seconds`, not both: remove one"
        raise mistake(message)
    return number("retry", "seconds", seconds)


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
    checked = {name: number("timeout", name, value) for name, value in parts.items()}
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
    return record("concurrency", count("concurrency", "n", n, least=1))


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
        if count("limit", "at_once", at_once, least=1) > MOST_AT_ONCE:
            message = f"@limit takes up to {MOST_AT_ONCE} as `at_once`, not {at_once!r}"
            raise mistake(message)
    elif per_second is None:
        at_once = 1
    if per_second is not None:
        rate = number("limit", "per_second", per_second, most=MOST_PER_SECOND)
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
        note(function, "environment", list(variables))
        ensure_options(function, "environment").variables = variables
        return function

    return decorate


def _variable(name: Any, value: object) -> tuple[str, str]:
    if not is_variable_name(name):
        message = f"@environment: {name!r} cannot be the name of a variable"
        raise mistake(message)
    if isinstance(value, bytes) or not is_storable(str(value)):
        message = f"@environment takes UTF-8 text without a NUL, which the value of {name} is not"
        raise mistake(message)
    return name, str(value)


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


# --- what is to be seen -----------------------------------------------------------------------


@overload
def card(method: Method, /) -> Method: ...
@overload
def card(
    *,
    type: str | builtins.type[Any] = "default",
    id: str | None = None,
    options: Mapping[str, Any] | None = None,
    timeout: float = 45,
    save_errors: bool = True,
    customize: bool = False,
    refresh_interval: float = 0.1,
    **others: object,
) -> Callable[[Method], Method]: ...
@takes_configs
def card(method: Any = None, /, **attributes: Any) -> Any:  # noqa: D417 - those of the overloads
    """Give each task of the step a card: a page about it, to which the step may add something.

    A step may have several. Nothing that happens on a card fails the step. See `asyncflow.cards`.

    Args:
        method: The step, if the decorator is used without parentheses.
        type: `default` tells what the task is, its artifacts and its log, below what the step has
            added; `blank` has only what the step has added; `html` shows the HTML in `self.html`,
            or in the attribute that `options={"attribute": …}` names; or a type of your own, by its
            name or its class.
        id: By which the step finds it: `current.card["id"]`.
        options: Options of the type; `title` is one of the default and the blank card.
        timeout: How many seconds it may take to make the card; then it is left out.
        save_errors: Whether a card of your own type shows an exception of its `render`.
        customize: Whether `current.card` is this card if the step has several.
        refresh_interval: How many seconds there are between two updates, at least.
        others: Further arguments of Metaflow, such as `rank`; without effect.

    Raises:
        FlowError: A value makes no sense.
    """
    kind = attributes.get("type")
    if isinstance(kind, type):  # a class of one's own stands for its name
        attributes["type"] = getattr(kind, "type", kind)
    for name in ("type", "id"):
        given = attributes.get(name)
        wanted = isinstance(given, str) and 0 < len(given) <= ID_CHARACTERS
        if name in attributes and not wanted and not (name == "id" and given is None):
            message = f"@card takes a text of 1 to {ID_CHARACTERS} characters as `{name}`, "
            raise mistake(message + f"not {given!r:.200}")
    for name in ("timeout", "refresh_interval"):
        if name in attributes and not isinstance(attributes[name], str):  # the command line's
            number("card", name, attributes[name])
    if not isinstance(attributes.get("options") or {}, Mapping | str):
        message = f"@card takes a dict as `options`, not {attributes['options']!r:.200}"
        raise mistake(message)

    def decorate(function: Method) -> Method:
        ensure_options(function, "card").options.setdefault("card", []).append(
            plain_data(attributes)
        )
        return function

    return apply("card", method, decorate)
