"""Decorators that a run puts on every step that lacks them: `--with`, and `decospecs` of a runner.

Each is a text: `retry:times=2`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar

from asyncflow.errors import FlowError
from asyncflow.flow import decorators, remote_decorators
from asyncflow.flow.delayed_values import WRITTEN_CLASS
from asyncflow.flow.lookalike import lookalike
from asyncflow.flow.mutators import copy_of_step
from asyncflow.flow.own_decorators import decorator_named, split_decorator
from asyncflow.flow.step_options import ensure_options, is_step, options_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from asyncflow.flow.spec import FlowSpec

Flow = TypeVar("Flow", bound="type[FlowSpec]")

_DECORATORS: Final = ("retry", "catch", "timeout", "environment", "resources", "card", "isolate")
_REMOTE: Final = ("conda", "pypi", "batch", "kubernetes")
_ALONE: Final = ("isolate",)  # written without brackets


def decorated(flow: Flow, wanted: Iterable[str] | None) -> Flow:
    """A copy of a flow whose steps have these decorators as well; the flow itself for none.

    Raises:
        FlowError: There is no such decorator, or it does not take these arguments.
    """
    if not wanted:
        return flow
    if isinstance(wanted, str):
        message = f"give a list of decorators, not one text: [{wanted!r}]"
        raise FlowError(message)
    made: Flow = lookalike(flow, {WRITTEN_CLASS: getattr(flow, WRITTEN_CLASS, flow)})
    for name in dir(flow):
        method = getattr(flow, name, None)
        if is_step(method):
            setattr(made, name, copy_of_step(method))
    decorate(made, wanted)
    return made


def decorate(flow: type[FlowSpec], wanted: Iterable[str]) -> None:
    """Put decorators on every step that lacks them, as `--with retry:times=2` says.

    Raises:
        FlowError: There is no such decorator, or it does not take these arguments.
    """
    methods = [getattr(flow, name) for name in dir(flow)]
    steps = [method for method in methods if is_step(method)]
    for each in wanted:
        try:
            name, arguments = split_decorator(each)
        except FlowError as error:
            raise FlowError(f"--with {error}") from error
        known = name in (*_DECORATORS, *_REMOTE)
        put = _known(each, name, arguments) if known else _own(flow, each, name, arguments)
        for step in steps:
            options = options_of(step)
            if options is not None and name not in options.options:
                put(step)


def _known(whole: str, name: str, arguments: dict[str, Any]) -> Callable[[Any], Any]:
    """A decorator of asyncflow, with these arguments."""
    make = getattr(remote_decorators if name in _REMOTE else decorators, name)
    try:
        put: Callable[[Any], Any] = make if name in _ALONE else make(**arguments)
    except TypeError as error:
        message = f"--with {whole}: {error}"
        raise FlowError(message) from error
    return put


def _own(
    flow: type[FlowSpec], whole: str, name: str, arguments: dict[str, Any]
) -> Callable[[Any], Any]:
    """A decorator of the user's own, `module.name` or `name` in the flow's file."""
    try:
        kind = decorator_named(name, flow)
    except FlowError as error:
        message = (
            f"--with {whole}: {error}; it takes {', '.join(_DECORATORS)}, and decorators of your "
            "own as NAME, if they are in the flow's file, or as MODULE.NAME"
        )
        raise FlowError(message) from error
    kind.check((), arguments)
    full = f"{kind.__module__}.{kind.__qualname__}"
    data = {"name": full, "args": [], "kwargs": arguments, "with": name}

    def put(step: Any) -> None:
        ensure_options(step, name).named.insert(0, data)

    return put
