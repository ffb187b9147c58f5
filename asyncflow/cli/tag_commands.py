"""`asyncflow tag`: list the tags of runs, and change them, also while a run goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from asyncflow.cli.common_options import json_option, store_option
from asyncflow.cli.completion import pathspecs
from asyncflow.cli.look_commands import can_be_name, find, pass_over, print_json
from asyncflow.cli.stdout_errors import print_lines

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from asyncflow.client import Run
    from asyncflow.flow.spec import FlowSpec

_FLOW_AND_RUN = 2  # parts of a run's pathspec


def make_tag(flow: type[FlowSpec] | None, script: str) -> click.Group:  # noqa: ARG001 - as its siblings
    name = None if flow is None else flow.__name__
    return click.Group(
        "tag",
        commands=[_make_list(name), _make_add(name), _make_remove(name), _make_replace(name)],
        help="List the tags of runs, and change them, while a run goes on or later.",
        short_help="List the tags of runs, and change them.",
    )


def _run_option(flow: str | None, *, required: bool) -> click.Option:
    """The option `--run-id`; for one flow, the id will do."""

    def whole(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
        from asyncflow.client.run_names import may_be_run

        if value is None:
            if required:
                ctx.fail(f"say which run: --run-id {_latest(flow, ctx.params.get('store'))}")
            return None
        parts = value.strip("/").split("/")
        if flow is not None and len(parts) == 1:
            parts.insert(0, flow)
        short = len(parts) == 1 and may_be_run(parts[0])
        if not (short or len(parts) == _FLOW_AND_RUN) or not all(map(can_be_name, parts)):
            message = f"{value!r} is not of the form {'ID or ' if flow else ''}Flow/run"
            raise click.BadParameter(message, ctx, param)
        return "/".join(parts)

    return click.Option(
        ["--run-id"],
        callback=whole,
        metavar="ID" if flow else "FLOW/ID",
        shell_complete=pathspecs(2),
        help=f"The run{'' if required else '; by default the latest'}.",
    )


def _latest(flow: str | None, store: Path | str | None) -> str:
    """The latest run, for an error."""
    from asyncflow.errors import AsyncflowError

    try:
        found = next(_newest(flow, store, limit=1), None)
    except AsyncflowError:
        found = None
    if found is None:
        return "ID" if flow else "FLOW/ID"
    return f"{found.id if flow else found.pathspec}, for the latest"


def _newest(
    flow: str | None, store: Path | str | None, tags: Sequence[str] = (), *, limit: int = 0
) -> Iterator[Run]:
    from asyncflow.client.newest_runs import newest_runs

    return newest_runs(flow, store, tags, limit, pass_over)


# --- list -------------------------------------------------------------------------------------


def _make_list(flow: str | None) -> click.Command:
    def list_tags(
        run_id: str | None,
        store: Path | str | None,
        *,
        all_runs: bool,
        my_runs: bool,
        hide_system_tags: bool,
        group_by_tag: bool,
        flat: bool,
        as_json: bool,
    ) -> None:
        if group_by_tag and flat:
            message = "--group-by-tag and --flat exclude each other"
            raise click.UsageError(message)
        if run_id is not None and (all_runs or my_runs):
            message = "--run-id names one run: leave out --all and --my-runs"
            raise click.UsageError(message)
        if run_id is not None:
            runs: Iterable[Run] = [find(run_id, store)]
        else:
            runs = _newest(flow, store, _own() if my_runs else (), limit=not (all_runs or my_runs))
        if as_json:
            print_json([_tag_data(run) for run in runs])
            return
        tags = ((run, sorted(run.user_tags if hide_system_tags else run.tags)) for run in runs)
        if flat:
            print_lines(sorted({_shown(tag) for _, each in tags for tag in each}))
        elif group_by_tag:
            print_lines(_by_tag(tags))
        else:
            print_lines(_line(run.pathspec, each) for run, each in tags)

    return click.Command(
        "list",
        params=[
            _run_option(flow, required=False),
            _flag("--all", "all_runs", help_="All runs."),
            _flag("--my-runs", help_="All runs that you have started."),
            _flag("--hide-system-tags", help_="Only tags that a user has given."),
            click.Option(
                ["--group-by-run"],
                is_flag=True,
                expose_value=False,
                help="A line for each run, which is the default.",
            ),
            _flag("--group-by-tag", help_="A line for each tag."),
            _flag("--flat", help_="The tags alone, one a line."),
            store_option(),
            json_option(),
        ],
        callback=list_tags,
        help="List the tags of a run, or of many.",
    )


def _flag(*names: str, help_: str) -> click.Option:
    return click.Option(list(names), is_flag=True, help=help_)


def _own() -> list[str]:
    from asyncflow._support.user_name import user_name

    return [f"user:{user_name()}"]


def _by_tag(tags: Iterable[tuple[Run, list[str]]]) -> Iterator[str]:
    runs: dict[str, list[str]] = {}
    for run, each in tags:
        for tag in each:
            runs.setdefault(tag, []).append(run.pathspec)
    return (_line(tag, runs[tag]) for tag in sorted(runs))


def _line(head: str, rest: Iterable[str]) -> str:
    return f"{_shown(head)}: {' '.join(map(_shown, rest))}".rstrip()


def _shown(tag: str) -> str:
    return tag if tag.isprintable() else repr(tag)


def _tag_data(run: Run) -> dict[str, Any]:
    return {
        "pathspec": run.pathspec,
        "user_tags": sorted(run.user_tags),
        "system_tags": sorted(run.system_tags),
    }


# --- change -----------------------------------------------------------------------------------


def _change(
    run_id: str,
    store: Path | str | None,
    *,
    add: Sequence[str],
    remove: Sequence[str],
    as_json: bool,
) -> None:
    from asyncflow.errors import TagError

    run: Run = find(run_id, store)
    try:
        run.replace_tags(remove, add)
    except TagError as error:
        raise click.UsageError(str(error)) from error
    if as_json:
        print_json(_tag_data(run))
    else:
        print_lines([_line(run.pathspec, sorted(run.tags))])


def _make_add(flow: str | None) -> click.Command:
    def add(run_id: str, tags: tuple[str, ...], store: Path | str | None, *, as_json: bool) -> None:
        _change(run_id, store, add=tags, remove=(), as_json=as_json)

    return click.Command(
        "add",
        params=[*_of_changes(flow), _texts()],
        callback=add,
        help="Give a run tags. One that it has already stays.",
    )


def _make_remove(flow: str | None) -> click.Command:
    def remove(
        run_id: str, tags: tuple[str, ...], store: Path | str | None, *, as_json: bool
    ) -> None:
        _change(run_id, store, add=(), remove=tags, as_json=as_json)

    return click.Command(
        "remove",
        params=[*_of_changes(flow), _texts()],
        callback=remove,
        help="Take tags from a run. One that it does not have is no error.",
    )


def _make_replace(flow: str | None) -> click.Command:
    def replace(
        run_id: str,
        add: tuple[str, ...],
        remove: tuple[str, ...],
        store: Path | str | None,
        *,
        as_json: bool,
    ) -> None:
        if not add and not remove:
            message = "say which tags: --remove OLD --add NEW"
            raise click.UsageError(message)
        _change(run_id, store, add=add, remove=remove, as_json=as_json)

    return click.Command(
        "replace",
        params=[
            *_of_changes(flow),
            click.Option(["--add"], multiple=True, metavar="T", help="A tag to give; repeatable."),
            click.Option(
                ["--remove"], multiple=True, metavar="T", help="A tag to take away; repeatable."
            ),
        ],
        callback=replace,
        help="Take tags from a run and give it others, in one change. A tag in both stays.",
    )


def _of_changes(flow: str | None) -> list[click.Option]:
    return [_run_option(flow, required=True), store_option(), json_option()]


def _texts() -> click.Argument:
    return click.Argument(["tags"], nargs=-1, required=True, metavar="TAG…")
