"""Options and commands of Metaflow's command line: the same meaning, or no effect here.

`--help` does not list them. A parameter of the flow wins over an option of the same name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import click

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
