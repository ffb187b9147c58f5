"""The commands that keep a store healthy: verify, gc, rm."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from asyncflow.cli.common_options import json_option, store_option
from asyncflow.cli.completion import pathspecs
from asyncflow.cli.exit_status import FAILED
from asyncflow.cli.progress_line import ProgressLine
from asyncflow.cli.stdout_errors import print_lines
from asyncflow.cli.times import age

if TYPE_CHECKING:
    from pathlib import Path

    from asyncflow.flow.spec import FlowSpec
    from asyncflow.store.interface import RunStore
    from asyncflow.store.maintenance.remove import Removed


def _open(store: Path | str | None) -> RunStore:
    from asyncflow._support.settings import Settings
    from asyncflow.store import open_store

    return open_store(Settings.read(store=store).store)


def _parts(flow: type[FlowSpec] | None, given: str | None) -> list[str]:
    """A pathspec's parts; a flow's own command may omit its name."""
    parts = given.strip("/").split("/") if given else []
    if flow is not None and parts[:1] != [flow.__name__]:
        parts.insert(0, flow.__name__)
    return parts


# --- verify -----------------------------------------------------------------------------------


def make_verify(flow: type[FlowSpec] | None, script: str) -> click.Command:  # noqa: ARG001 - as its siblings
    def verify(pathspec: str | None, store: Path | str | None, *, as_json: bool) -> int:
        from asyncflow.cli import store_text
        from asyncflow.store.maintenance.any_store import verify_store

        parts = _parts(flow, pathspec)
        if len(parts) > 2 or not all(parts):  # noqa: PLR2004 - a flow and a run
            message = f"{pathspec!r} is not of the form Flow or Flow/run"
            raise click.BadParameter(message, param_hint="PATHSPEC")
        layout = _open(store)
        parts = _whole(layout, parts)
        _check_there(layout, *parts)
        with ProgressLine() as progress:
            verified = verify_store(
                layout,
                *parts,
                on_progress=lambda so_far: progress.show(
                    lambda: f"verifying: {store_text.progress_text(so_far)}"
                ),
            )
        if as_json:
            click.echo(json.dumps(verified.to_data(), indent=2))
        else:
            print_lines(store_text.verified_lines(verified))
        return FAILED if verified.damage else 0

    return click.Command(
        "verify",
        params=[
            click.Argument(
                ["pathspec"],
                required=False,
                metavar="[FLOW[/RUN]]",
                shell_complete=pathspecs(2),
            ),
            store_option(),
            json_option(),
        ],
        callback=verify,
        help=(
            "Read the whole store, or one flow or run, compare everything with its checksums, and "
            "report what is damaged and what that affects. Nothing is changed. The exit status is "
            "1 if there is damage."
        ),
        short_help="Check a store for damage.",
    )


def _whole(layout: RunStore, parts: list[str]) -> list[str]:
    """The parts of a pathspec of a flow or a run, which may have a short name."""
    from asyncflow.client.run_names import whole_name

    return whole_name(layout, "/".join(parts)).split("/") if parts else []


def _check_there(store: RunStore, flow: str | None = None, run_id: str | None = None) -> None:
    from asyncflow.errors import NotFoundError

    if flow is not None and not store.has_flow(flow):
        there = ", ".join(store.flows()) or "nothing"
        message = f"the store {store.location} has no flow {flow!r}; it has {there}"
        raise NotFoundError(message)
    if flow is not None and run_id is not None and run_id not in store.runs(flow):
        raise NotFoundError(store.has_no_run(flow, run_id))


# --- gc ---------------------------------------------------------------------------------------


def make_gc(flow: type[FlowSpec] | None, script: str) -> click.Command:  # noqa: ARG001 - as its siblings
    def gc(store: Path | str | None, *, dry_run: bool, as_json: bool) -> None:
        from asyncflow.cli import store_text
        from asyncflow.store.maintenance.any_store import collect_in

        with ProgressLine() as progress:
            collected = collect_in(
                _open(store),
                dry_run=dry_run,
                on_wait=_tell,
                on_progress=lambda what, done, total: progress.show(
                    lambda: f"collecting: {done:,} of {total:,} {what}"
                ),
            )
        if as_json:
            click.echo(json.dumps(collected.to_data(), indent=2))
        else:
            print_lines(store_text.collected_lines(collected))

    return click.Command(
        "gc",
        params=[_dry_run_option(), store_option(), json_option()],
        callback=gc,
        help=(
            "Delete files that no run of the store needs any more: blobs and segments that no "
            "journal refers to, and files that crashes have left. Runs may run and start "
            "meanwhile; a file younger than two hours, or than the oldest running run, is kept."
        ),
        short_help="Delete files that no run needs any more.",
    )


# --- rm ---------------------------------------------------------------------------------------


def make_rm(flow: type[FlowSpec] | None, script: str) -> click.Command:  # noqa: ARG001 - as its siblings
    def rm(
        runs: tuple[str, ...],
        store: Path | str | None,
        older_than: float | None,
        keep_last: int | None,
        *,
        dry_run: bool,
        as_json: bool,
        flow_name: str | None = None,
        all_flows: bool = False,
    ) -> None:
        from asyncflow.cli import store_text
        from asyncflow.store.maintenance.any_store import remove_from

        filtered = older_than is not None or keep_last is not None
        if bool(runs) == filtered:
            message = "name runs as FLOW/RUN, or choose them with --older-than or --keep-last"
            raise click.UsageError(message)
        name = flow.__name__ if flow is not None else flow_name
        if all_flows and (name is not None or runs):
            message = (
                "--all-flows needs --older-than or --keep-last, and excludes --flow and run names"
            )
            raise click.UsageError(message)
        if filtered and name is None and not all_flows:
            message = "choose a flow with --flow F, or give --all-flows"
            raise click.UsageError(message)
        layout = _open(store)
        running: tuple[tuple[str, str], ...] = ()
        if filtered:
            wanted, running = _choose(layout, name, older_than, keep_last or 0)
        else:
            named = [_run(layout, flow, name, each) for each in runs]
            wanted = list(dict.fromkeys(named))
        removed = remove_from(layout, wanted, dry_run=dry_run, on_wait=_tell)
        if as_json:
            data = _removed_data(removed, running, dry_run=dry_run)
            click.echo(json.dumps(data, indent=2))
        else:
            print_lines(store_text.removed_lines(removed, running, dry_run=dry_run))

    own = (
        []
        if flow is not None
        else [
            click.Option(
                ["--flow", "flow_name"],
                metavar="F",
                help="Runs of this flow.",
                shell_complete=pathspecs(1),
            ),
            click.Option(["--all-flows"], is_flag=True, help="Runs of every flow of the store."),
        ]
    )
    return click.Command(
        "rm",
        params=[
            click.Argument(["runs"], nargs=-1, metavar="[RUN]...", shell_complete=pathspecs(2)),
            *own,
            click.Option(
                ["--older-than"],
                callback=age,
                metavar="AGE",
                help="Runs that started longer ago than this: 30d, 12h, 90m.",
            ),
            click.Option(
                ["--keep-last"],
                type=click.IntRange(min=0),
                metavar="N",
                help="All but the newest N runs of each flow.",
            ),
            _dry_run_option(),
            store_option(),
            json_option(),
        ],
        callback=rm,
        help=(
            "Remove the named runs, each as Flow/run, or those that the options choose. A running "
            "run is refused if it is named, and skipped by the options. Values that other runs "
            "need are kept. `asyncflow gc` frees the blobs."
        ),
        short_help="Remove runs.",
    )


def _run(
    layout: RunStore, flow: type[FlowSpec] | None, flow_name: str | None, given: str
) -> tuple[str, str]:
    parts = _parts(flow, given)
    if flow is None and flow_name is not None and len(parts) == 1:
        parts.insert(0, flow_name)
    if parts and all(parts):
        parts = _whole(layout, parts)
    if len(parts) != 2 or not all(parts):  # noqa: PLR2004 - a flow and a run
        message = f"{given!r} is not of the form Flow/run"
        raise click.BadParameter(message, param_hint="RUN")
    return parts[0], parts[1]


def _choose(
    layout: RunStore, flow: str | None, older_than: float | None, keep_last: int
) -> tuple[list[tuple[str, str]], tuple[tuple[str, str], ...]]:
    from asyncflow.store.maintenance.any_store import choose_in

    if flow is not None:
        _check_there(layout, flow)
    flows = layout.flows() if flow is None else [flow]
    chosen = choose_in(layout, flows, older_than=older_than, keep_last=keep_last)
    for why in chosen.unreadable:
        click.echo(f"Skipped: {why}", err=True)
    return list(chosen.runs), chosen.running


def _removed_data(
    removed: list[Removed], running: tuple[tuple[str, str], ...], *, dry_run: bool
) -> dict[str, Any]:
    return {
        "dry_run": dry_run,
        "removed": [run.to_data() for run in removed],
        "running": [f"{flow}/{run_id}" for flow, run_id in running],
        "bytes": sum(run.freed.size for run in removed),
    }


# --- what they share --------------------------------------------------------------------------


def _dry_run_option() -> click.Option:
    return click.Option(["--dry-run"], is_flag=True, help="Show what would be done; do nothing.")


def _tell(what: str) -> None:
    click.echo(f"{what[:1].upper()}{what[1:]}", err=True)
