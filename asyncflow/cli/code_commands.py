"""The commands about the code of runs: code and diff. They start and change nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from asyncflow.cli.common_options import json_option, store_option
from asyncflow.cli.look_commands import find, pathspec_argument, print_json
from asyncflow.cli.stdout_errors import print_lines, print_output
from asyncflow.errors import NotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncflow.client.code import RunCode
    from asyncflow.flow.spec import FlowSpec


def make_code(flow: type[FlowSpec] | None, script: str) -> click.Command:  # noqa: ARG001 - as its siblings
    def code(
        pathspec: str, store: Path | str | None, file: str | None, output: Path | None
    ) -> None:
        found = _code_of(pathspec, store)
        if output is not None:
            try:
                found.extract(output)
            except FileExistsError as error:
                message = f"{error} is there already: name another folder"
                raise click.UsageError(message) from error
        elif file is None:
            print_lines(_listed(found))
        elif file in found.files:
            print_output(found.files[file])
        else:
            there = ", ".join(found.files)
            message = f"{file!r} was not kept with {pathspec}; there are {there}"
            raise NotFoundError(message)

    return click.Command(
        "code",
        params=[
            pathspec_argument(flow, 2),
            click.Argument(["file"], required=False),
            click.Option(
                ["-o", "--output"],
                type=click.Path(file_okay=False, path_type=Path),
                metavar="DIR",
                help="Write the files below this folder.",
            ),
            store_option(),
        ],
        callback=code,
        help="Show the source code that a run was started with: its files, or the text of one.",
        short_help="Show the code that a run was started with.",
    )


def _code_of(pathspec: str, store: Path | str | None) -> RunCode:
    found: RunCode | None = find(pathspec, store).code
    if found is None:
        message = f"no code was kept with {pathspec}: its engine had keep_code='none', or was older"
        raise NotFoundError(message)
    return found


def _listed(code: RunCode) -> Iterator[str]:
    for name, text in code.files.items():
        own = "  the flow's own file" if name == code.script_name else ""
        yield f"{len(text.splitlines()):>7} lines  {name}{own}"
    for name in code.left_out:
        yield f"     left out  {name}  too large, or not there"


def make_diff(flow: type[FlowSpec] | None, script: str) -> click.Command:  # noqa: ARG001 - as its siblings
    def diff(before: str, after: str, store: Path | str | None, *, as_json: bool) -> None:
        from asyncflow.client.comparison import compare_runs

        found = compare_runs(find(before, store), find(after, store))
        if as_json:
            print_json(found)
        else:
            print_lines(_differences(found))

    return click.Command(
        "diff",
        params=[
            pathspec_argument(flow, 2, name="before"),
            pathspec_argument(flow, 2, name="after"),
            json_option(),
            store_option(),
        ],
        callback=diff,
        help=(
            "Compare two runs: code, parameters, artifacts by their hashes, and times. No value is "
            "read."
        ),
        short_help="Compare two runs.",
    )


def _differences(found: dict[str, Any]) -> Iterator[str]:
    before, after = found["runs"]
    yield f"- {before}"
    yield f"+ {after}"
    yield ""
    yield "parameters"
    yield from _changed(found["parameters"])
    yield "artifacts"
    yield from _artifacts(found["artifacts"])
    yield "seconds"
    yield from _seconds(found["seconds"])
    yield "code"
    yield from _code(found["code"])


def _changed(changes: dict[str, list[str | None]]) -> Iterator[str]:
    for name, (before, after) in changes.items():
        yield f"  {name}: {_told(before)} -> {_told(after)}"
    if not changes:
        yield "  the same"


def _told(value: str | None) -> str:
    return "none" if value is None else value


def _artifacts(steps: dict[str, dict[str, str]]) -> Iterator[str]:
    same = 0
    for step, names in steps.items():
        for name, standing in names.items():
            if standing == "same":
                same += 1
            else:
                yield f"  {step}/{name}: {standing}"
    yield f"  {same} the same"


def _seconds(seconds: dict[str, Any]) -> Iterator[str]:
    rows = {"run": seconds["run"], **seconds["steps"]}
    for name, times in rows.items():
        before, after = ("-" if each is None else f"{each:.3f}" for each in times)
        yield f"  {name}: {before} -> {after}"


def _code(changes: dict[str, list[str]] | None) -> Iterator[str]:
    if changes is None:
        yield "  not kept with both runs"
        return
    for lines in changes.values():
        yield from lines
    if not changes:
        yield "  the same"
