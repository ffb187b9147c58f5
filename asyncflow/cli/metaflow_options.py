"""Options and commands of Metaflow's command line: the same meaning, or no effect here.

`--help` does not list them. A parameter of the flow wins over an option of the same name.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from asyncflow.errors import FlowError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from asyncflow.flow.spec import FlowSpec

COMMANDS: Final = {
    "help": ("--help",),
    "output-dot": ("graph", "--format", "dot"),
    "output-raw": ("graph", "--format", "json"),
}
"""What each command stands for; `version` is shown as `asyncflow --version` does."""

_WITHOUT_EFFECT: Final = (
    "metadata",
    "environment",
    "datastore",
    "datastore-root",
    "package-suffixes",
)
_GIVEN: Final = "asyncflow.without_effect"  # the key of those that were given in a context
_LOCAL: Final = "local"  # where everything is here, too
_WATCHING: Final = ("event-logger", "monitor")
_OF_RUNS: Final = ("max-num-splits", "max-log-size", "namespace")
_DECORATORS: Final = ("retry", "catch", "timeout", "environment", "resources", "card", "isolate")
_REMOTE: Final = ("conda", "pypi", "batch", "kubernetes")
_ALONE: Final = ("isolate",)  # written without brackets


class Accepted(click.Option):
    """An option that `--help` does not list, and that a parameter of the flow may replace."""

    def __init__(self, names: list[str], **attributes: Any) -> None:
        super().__init__(names, hidden=True, **attributes)


def before_commands() -> list[click.Option]:
    """Options before the command, as in `python FILE --quiet run`."""
    nothing = [_without_effect(f"--{name}") for name in (*_WITHOUT_EFFECT, *_WATCHING, "namespace")]
    pylint = _without_effect("--pylint/--no-pylint")
    return [*nothing, pylint, Accepted(["--quiet/--not-quiet"]), with_option()]


def of_runs() -> list[click.Option]:
    nothing = (_without_effect(f"--{name}") for name in _OF_RUNS)
    file = click.Path(dir_okay=False, path_type=Path)
    return [with_option(), Accepted(["--runner-attribute-file"], type=file), *nothing]


def _without_effect(name: str) -> Accepted:
    """An option that does nothing, which is noted unless nothing is what its value asks for."""

    def note(ctx: click.Context, param: click.Parameter, value: object) -> None:
        if value not in {None, False, _LOCAL}:
            ctx.meta.setdefault(_GIVEN, []).append(param.opts[0])

    return Accepted([name], expose_value=False, callback=note)


def say_without_effect(ctx: click.Context) -> None:
    """Say once, on stderr, which of the options that were given do nothing."""
    given = ctx.meta.get(_GIVEN)
    if given:
        click.echo(f"Without effect here: {', '.join(dict.fromkeys(given))}.", err=True)


def with_option() -> click.Option:
    return Accepted(["--with", "decorators"], multiple=True)


def decorate(flow: type[FlowSpec], wanted: Iterable[str]) -> None:
    """Put decorators on every step that lacks them, as `--with retry:times=2` says.

    Raises:
        FlowError: There is no such decorator, or it does not take these arguments.
    """
    from asyncflow.flow.own_decorators import split_decorator
    from asyncflow.flow.step_options import is_step, options_of

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
    from asyncflow.flow import decorators, remote_decorators

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
    from asyncflow.flow.own_decorators import decorator_named
    from asyncflow.flow.step_options import ensure_options

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
