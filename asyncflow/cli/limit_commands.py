"""`asyncflow limit`: look at the limits of a store, and change them while runs go on."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import click

from asyncflow.cli.common_options import json_option, store_option
from asyncflow.errors import NotFoundError
from asyncflow.values import LEAST_PER_SECOND, LIMIT_NAME, MOST_AT_ONCE, MOST_PER_SECOND

if TYPE_CHECKING:
    from pathlib import Path

    from asyncflow.flow.spec import FlowSpec
    from asyncflow.store.interface import RunStore
    from asyncflow.store.limit_files import Bounds
    from asyncflow.store.limit_interface import LimitStore


def make_limit(flow: type[FlowSpec] | None, script: str) -> click.Group:  # noqa: ARG001 - as its siblings
    return click.Group(
        "limit",
        commands=[_make_list(), _make_set(), _make_unset()],
        help=(
            "List the limits that steps have by @limit, and change them while runs go on. A value "
            "that is set here overrides the step's for every run of the store."
        ),
        short_help="List limits, and change them while runs go on.",
    )


def _limits(store: Path | str | None, *, create: bool = False) -> LimitStore:
    from asyncflow._support.settings import Settings
    from asyncflow.store import open_store

    opened: RunStore = open_store(Settings.read(store=store).store, create=create)
    return opened.named_limits


def _make_list() -> click.Command:
    def list_limits(store: Path | str | None, *, as_json: bool) -> None:
        from asyncflow.cli.tables import use_of_limit
        from asyncflow.client.limit_data import limits_data
        from asyncflow.store.limit_files import Bounds

        found = limits_data(_limits(store))
        if as_json:
            click.echo(json.dumps(list(found), indent=2))
            return
        limit = None
        for limit in found:
            bounds = Bounds(limit["at_once"], limit["per_second"])
            click.echo(f"{limit['name']}: {bounds}; {use_of_limit(limit)}")
        if limit is None:
            click.echo("No step of a run of this store was under a limit yet.")

    return click.Command(
        "list",
        params=[store_option(), json_option()],
        callback=list_limits,
        help="List the limits of the store: what is set, and how much of it is in use.",
    )


def _make_set() -> click.Command:
    def set_limit(
        name: str,
        at_once: int | None,
        per_second: float | None,
        store: Path | str | None,
        *,
        as_json: bool,
    ) -> None:
        from asyncflow.store.limit_files import Bounds

        _check_name(name)
        if at_once is None and per_second is None:
            message = f"give a value for {name}: a number at a time, --per-second, or both"
            raise click.UsageError(message)
        bounds = Bounds(at_once, per_second)
        _limits(store, create=True).set_bounds(name, bounds)
        _tell(name, bounds, as_json=as_json)

    return click.Command(
        "set",
        params=[
            click.Argument(["name"]),
            click.Argument(
                ["at_once"], type=click.IntRange(0, MOST_AT_ONCE), required=False, metavar="[N]"
            ),
            click.Option(
                ["--per-second"],
                type=_Rate(LEAST_PER_SECOND, MOST_PER_SECOND),
                metavar="RATE",
                help="How many tasks may start in a second.",
            ),
            store_option(),
            json_option(),
        ],
        callback=set_limit,
        help=(
            "Set how many tasks may run under a limit at a time (0 for none), or how many may "
            "start in a second, or both. A value that is not set stays as the step says. Running "
            "engines notice within a second; running tasks go on."
        ),
        short_help="Set a limit.",
    )


def _make_unset() -> click.Command:
    def unset(name: str, store: Path | str | None, *, as_json: bool) -> None:
        from asyncflow.store.limit_files import Bounds

        _check_name(name)
        limits = _limits(store)
        if name not in (names := limits.names()):
            there = ", ".join(names) or "none"
            message = f"the store has no limit {name!r}; it has {there}"
            raise NotFoundError(message)
        limits.set_bounds(name, Bounds())
        _tell(name, Bounds(), as_json=as_json)

    return click.Command(
        "unset",
        params=[click.Argument(["name"]), store_option(), json_option()],
        callback=unset,
        help="Remove the override; the steps' own values apply again.",
    )


class _Rate(click.FloatRange):
    """A number within its range; `nan` is refused, though no comparison finds it out of range."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Convert as the base class does.

        Raises:
            click.BadParameter: It is not a number, or out of range.
        """
        rate: float = super().convert(value, param, ctx)
        if math.isnan(rate):
            self.fail(f"{value!r} is not a number", param, ctx)
        return rate


def _check_name(name: str) -> None:
    if not LIMIT_NAME.fullmatch(name):
        message = f"{name!r} cannot name a limit: use letters, digits, and _ - . between them"
        raise click.BadParameter(message, param_hint="NAME")


def _tell(name: str, bounds: Bounds, *, as_json: bool) -> None:
    from asyncflow.client.limit_data import bounds_data

    if as_json:
        click.echo(json.dumps({"name": name, **bounds_data(bounds)}))
    else:
        click.echo(f"{name}: {bounds}")
