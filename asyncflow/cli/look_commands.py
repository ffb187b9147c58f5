"""The commands that look back: runs, show, logs, dump, events. They start and change nothing."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from asyncflow._support.paths import absolute
from asyncflow._support.seldom_collected import seldom_collected
from asyncflow.cli.common_options import json_option, store_option
from asyncflow.cli.completion import pathspecs
from asyncflow.cli.metaflow_options import Accepted
from asyncflow.cli.stdout_errors import print_bytes, print_lines, print_output, takes_bytes
from asyncflow.cli.times import moment
from asyncflow.values import Status

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from asyncflow.client import Task
    from asyncflow.codec import Chunk
    from asyncflow.flow.spec import FlowSpec

_SHOWN_RUNS = 20
_SHOWN_TASKS = 50


_SHAPES = {
    1: "Flow",
    2: "Flow/run",
    3: "Flow/run/step",
    4: "Flow/run/step/task",
    5: "Flow/run/step/task/artifact",
}


def pathspec_argument(
    flow: type[FlowSpec] | None,
    *parts: int,
    name: str = "pathspec",
    or_file: bool = False,
    required: bool = True,
) -> click.Argument:
    """The argument PATHSPEC, with so many parts; of one flow it may leave out the flow's name.

    With `or_file`, it may be the file of a flow instead, as `FILE[:Flow]`.
    """
    own = None if flow is None else flow.__name__

    def whole(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
        from asyncflow.client.run_names import may_be_run

        if value is None and not required:
            return None

        if or_file and own is None and value is not None and names_file(value):
            return value
        given = [] if value is None else value.strip("/").split("/")
        if own is not None and given[:1] != [own]:
            given.insert(0, own)
        count = len(given) + (own is None and may_be_run(given[0]) if given else 0)
        if not all(map(can_be_name, given)) or not {count, len(given)} & set(parts):
            wanted = " or ".join(_SHAPES[count] for count in parts)
            wanted += " or FILE[:Flow]" * (or_file and own is None)
            message = f"{value!r} is not of the form {wanted}"
            raise click.BadParameter(message, ctx, param)
        return "/".join(given)

    return click.Argument(
        [name],
        callback=whole,
        required=required and (own is None or 1 not in parts),
        shell_complete=pathspecs(max(parts)),
    )


def names_file(value: str) -> bool:
    """Whether this names the file of a flow, as `FILE.py` or `FILE.py:Flow`."""
    return value.partition(":")[0].endswith(".py")


def can_be_name(name: str) -> bool:
    """Whether something can have this name; `..` is a typing error."""
    return bool(name) and not name.startswith(".")


def _flow_name(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    if value is None or (can_be_name(value) and "/" not in value):
        return value
    message = f"{value!r} is not of the form {_SHAPES[1]}"
    raise click.BadParameter(message, ctx, param, param_hint="FLOW")


def whole(pathspec: str, store: Path | str | None) -> str:
    """A pathspec with its flow and its whole run id, see `asyncflow.client.run_names`.

    Raises:
        NotFoundError: It names no run, or several.
        StoreError: There is no store, or it cannot be read.
    """
    from asyncflow._support.settings import Settings
    from asyncflow.client.run_names import whole_name
    from asyncflow.store import open_store

    return whole_name(open_store(Settings.read(store=store).store), pathspec)


def find(pathspec: str, store: Path | str | None) -> Any:
    """The object that a pathspec names; its run may have a short name.

    Raises:
        NotFoundError: The store has no such object.
        StoreError: There is no store, or it cannot be read.
    """
    from asyncflow import client

    pathspec = whole(pathspec, store)
    kinds = (client.Flow, client.Run, client.Step, client.Task, client.Artifact)
    return kinds[pathspec.count("/")](pathspec, store=store)


# --- runs -------------------------------------------------------------------------------------


def make_runs(flow: type[FlowSpec] | None, script: str) -> click.Command:  # noqa: ARG001 - as its siblings
    def runs(
        store: Path | str | None,
        limit: int,
        tags: tuple[str, ...],
        *,
        as_json: bool,
        flow_name: str | None = None,
        named_flow: str | None = None,
        **chosen: Any,
    ) -> None:
        from asyncflow.cli import tables
        from asyncflow.client import json_data
        from asyncflow.client.newest_runs import newest_runs

        if flow_name is not None and named_flow not in {None, flow_name}:
            message = f"FLOW is {flow_name}, and --flow is {named_flow}: give one of them"
            raise click.UsageError(message)
        name = flow.__name__ if flow is not None else flow_name or named_flow
        found = newest_runs(name, store, tags, limit, pass_over, **chosen)
        if as_json:
            print_json(json_data.runs_data(found))
        else:
            print_lines(tables.runs_table(found))

    arguments: list[click.Parameter] = (
        []
        if flow is not None
        else [
            click.Argument(
                ["flow_name"],
                required=False,
                metavar="[FLOW]",
                callback=_flow_name,
                shell_complete=pathspecs(1),
            ),
            click.Option(
                ["--flow", "named_flow"],
                metavar="F",
                callback=_flow_name,
                shell_complete=pathspecs(1),
                help="Only runs of this flow, as FLOW.",
            ),
        ]
    )
    return click.Command(
        "runs",
        params=[
            *arguments,
            click.Option(
                ["--tag", "tags"],
                multiple=True,
                metavar="T",
                help="Only runs with this tag; repeatable.",
            ),
            click.Option(
                ["--status"],
                type=click.Choice(list(map(str, Status))),
                multiple=True,
                metavar="S",
                help=f"Only runs with this status: {', '.join(Status)}; repeatable.",
            ),
            click.Option(
                ["--since"],
                metavar="WHEN",
                callback=moment,
                help="Only runs started since then: 2d, 12h or 90m ago, or 2026-11-27 08:30.",
            ),
            click.Option(
                ["--before"], metavar="WHEN", callback=moment, help="Only runs started earlier."
            ),
            click.Option(
                ["--limit"],
                type=click.IntRange(min=0),
                default=_SHOWN_RUNS,
                show_default=True,
                metavar="N",
                help="The most runs to list; 0 for all.",
            ),
            store_option(),
            json_option(),
        ],
        callback=runs,
        help="List runs, newest first: each with its status, start and duration.",
        short_help="List runs.",
    )


def pass_over(why: str) -> None:
    """Say on stderr what was left out, and why."""
    click.echo(f"Skipped: {why}", err=True)


# --- show -------------------------------------------------------------------------------------


def make_show(flow: type[FlowSpec] | None, script: str) -> click.Command:  # noqa: ARG001 - as its siblings
    from asyncflow.cli.flow_options import run_choices

    def show(
        pathspec: str, store: Path | str | None, limit: int, *, as_json: bool, **_: Any
    ) -> None:
        from asyncflow.cli import tables
        from asyncflow.client import json_data

        shown = flow if "/" not in pathspec else None
        if flow is None and names_file(pathspec):
            from asyncflow.cli.run_commands import load

            shown = load(pathspec)
            pathspec = shown.__name__
        if shown is not None and not as_json:
            _show_flow(shown, store, limit)
            return
        found = find(pathspec, store)
        if as_json:
            print_json(json_data.data_of(found))
        else:
            print_lines(tables.lines_of(found, limit))

    return click.Command(
        "show",
        params=[
            pathspec_argument(flow, 1, 2, 3, 4, 5, or_file=True),
            click.Option(
                ["--limit"],
                type=click.IntRange(min=0),
                default=_SHOWN_TASKS,
                show_default=True,
                metavar="N",
                help="The most runs or tasks to list; 0 for all.",
            ),
            store_option(),
            json_option(),
            *run_choices(),
        ],
        callback=show,
        help=(
            "Show a flow, run, step, task or artifact: its status and contents. "
            "PATHSPEC is Flow/run/step/task/artifact or a beginning of it. No value is loaded. "
            "FILE[:Flow] in its place shows the flow as it is written, and its runs."
        ),
        short_help="Show a flow, run, step, task or artifact.",
    )


def _show_flow(flow: type[FlowSpec], store: Path | str | None, limit: int) -> None:
    """Show a flow as it is written, and its runs if it has any."""
    from asyncflow.cli import tables
    from asyncflow.cli.flow_options import given_configs
    from asyncflow.cli.flow_text import flow_lines
    from asyncflow.errors import NotFoundError, StoreError
    from asyncflow.flow.graph_reader import prepare, read_graph

    ctx = click.get_current_context()
    flow = prepare(flow, given_configs(ctx.find_root().params, ctx.params))
    print_lines(flow_lines(flow, read_graph(flow)))
    try:
        runs = find(flow.__name__, store)
    except (NotFoundError, StoreError):
        return
    print_lines(["", *tables.lines_of(runs, limit)])


# --- logs -------------------------------------------------------------------------------------


class _LogsCommand(click.Command):
    """Metaflow writes `logs show PATHSPEC` as well."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args[:1] == ["scrub"]:
            message = (
                "logs scrub is not here: what a task has printed is in the run's journal, which "
                "nobody changes afterwards; asyncflow rm removes a whole run"
            )
            raise click.UsageError(message, ctx)
        return super().parse_args(ctx, args[1:] if args[:1] == ["show"] else args)


def make_logs(flow: type[FlowSpec] | None, script: str) -> click.Command:  # noqa: ARG001 - as its siblings
    def logs(
        pathspec: str,
        store: Path | str | None,
        *,
        stdout: bool,
        stderr: bool,
        follow: bool,
        both: bool,
        timestamps: bool,
        raw: bool,
    ) -> None:
        from asyncflow.cli import tables

        streams = {name for name, on in (("stdout", stdout), ("stderr", stderr)) if on and not both}
        if follow:
            for stream, text in _followed(pathspec, store, streams):
                _echo(stream, text, streams, raw=raw)
            return
        found = find(pathspec, store)
        if len(found.path_components) == 4:  # noqa: PLR2004 - a task: its own output, as printed
            for stream in ("stdout", "stderr"):
                if stream in (streams or {stream}):
                    _print_stream(found, stream, streams, timestamps=timestamps, raw=raw)
            if not streams:
                _print_failure(found, raw=raw)
            return
        terminal = sys.stdout.isatty() and not raw
        with seldom_collected():
            for text in tables.log_of(found, streams, terminal=terminal):
                print_output(text, raw=raw)

    return _LogsCommand(
        "logs",
        params=[
            pathspec_argument(flow, 2, 3, 4),
            click.Option(["--stdout"], is_flag=True, help="Only standard output."),
            click.Option(["--stderr"], is_flag=True, help="Only standard error."),
            Accepted(["--both"], is_flag=True),
            click.Option(
                ["--timestamps"], is_flag=True, help="Begin each line of a task with its time."
            ),
            click.Option(
                ["--raw"],
                is_flag=True,
                help="Send control characters to a terminal as they were printed.",
            ),
            _follow_option("Wait for further output, until the task or the run ends."),
            store_option(),
        ],
        callback=logs,
        help=(
            "Print the output of a task: each stream goes to the same stream here, or one stream "
            "to stdout if only that is asked for. If the task failed, the reason follows on "
            "stderr. For a run or a step, print the log that the terminal showed. A terminal shows "
            "control characters as escapes, such as \\x1b, and keeps colours; a file or a pipe "
            "gets the output unchanged."
        ),
        short_help="Print the output of tasks.",
    )


def _followed(
    pathspec: str, store: Path | str | None, streams: set[str]
) -> Iterable[tuple[str, str]]:
    from asyncflow.cli import follow_events

    return follow_events.output_of(whole(pathspec, store), store, streams)


def _print_stream(
    task: Task, stream: str, streams: set[str], *, timestamps: bool, raw: bool
) -> None:
    """Print a task's output on one stream; as raw bytes if our output is not a terminal."""
    to_stderr = stream == "stderr" and streams != {"stderr"}
    if not timestamps and takes_bytes(to_stderr=to_stderr):
        for data in task._printed_bytes(stream):  # noqa: SLF001 - both classes are one concept
            print_bytes(data, to_stderr=to_stderr)
        return
    for text in _stamped(task, stream) if timestamps else task.printed(stream):
        _echo(stream, text, streams, raw=raw)


def _print_failure(task: Task, *, raw: bool) -> None:
    """Print on stderr why a task failed, on lines of its own, below the task's output there."""
    failure = task.exception
    if failure is None:
        return
    last = ""
    for text in task.printed("stderr"):
        last = text[-1:] or last
    told = (failure.traceback or f"{failure.type}: {failure.message}").rstrip("\n")
    print_output("\n" * (last not in {"", "\n"}) + told + "\n", raw=raw, to_stderr=True)


def _echo(stream: str, text: str, streams: set[str], *, raw: bool) -> None:
    """Print output to the stream it came from; to stdout if only that stream was asked for."""
    print_output(text, raw=raw, to_stderr=stream == "stderr" and streams != {"stderr"})


def _stamped(task: Task, stream: str) -> Iterator[str]:
    for time, line in task.loglines(stream):
        yield f"{time.astimezone().isoformat(' ', 'milliseconds')} {line}\n"


def _follow_option(help_: str) -> click.Option:
    return click.Option(["--follow", "-f"], is_flag=True, help=help_)


# --- dump -------------------------------------------------------------------------------------


def make_dump(flow: type[FlowSpec] | None, script: str) -> click.Command:  # noqa: ARG001 - as its siblings
    def dump(
        pathspec: str,
        store: Path | str | None,
        output: Path | None,
        file: Path | None,
        *,
        as_json: bool,
        raw: bool,
        **chosen: Any,
    ) -> int:
        from asyncflow.cli.dump_text import Values, look_beside, stored_bytes

        for path in (output, file):
            if path is not None and not absolute(path).parent.is_dir():
                message = f"there is no folder {path.parent}: make it, or name a file elsewhere"
                raise click.UsageError(message)
        values = Values(
            as_json=as_json,
            include=_names(chosen["include"]),
            exclude=_names(chosen["exclude"]),
            most_bytes=chosen["max_value_size"],
        )
        found = find(pathspec, store)
        if raw:
            if file is not None or as_json:
                message = "--raw is for the stored bytes of one artifact: leave out --file, --json"
                raise click.UsageError(message)
            _write_raw(stored_bytes(found), output)
            return 0
        look_beside(found)
        if file is not None:
            pickled = values.pickled(found)
            with _writing(file):
                file.write_bytes(pickled)
        elif output is not None:
            with _writing(output):
                values.write(found, output)
        else:
            click.echo(values.text(found))
        for why in values.problems:
            click.echo(f"Error: {why}", err=True)
        return 1 if values.problems else 0

    return click.Command(
        "dump",
        params=[
            pathspec_argument(flow, 2, 3, 4, 5),
            click.Option(
                ["-o", "--output"],
                type=click.Path(dir_okay=False, path_type=Path),
                metavar="FILE",
                help=(
                    "Write to this file. One artifact is written as bytes or text if it is that, "
                    "a figure as a picture, any other value as the suffix says: .pkl, .json, "
                    ".npy, .csv, .parquet, .txt."
                ),
            ),
            click.Option(
                ["--file"],
                type=click.Path(dir_okay=False, path_type=Path),
                metavar="FILE",
                help=(
                    "Write a pickle to this file: the values by RUN/STEP/TASK and by name. Reading "
                    "it needs cloudpickle. A value that cannot be pickled is left out."
                ),
            ),
            click.Option(
                ["--include"],
                default="",
                metavar="NAMES",
                help="Only artifacts of these names, separated by commas.",
            ),
            click.Option(
                ["--exclude"], default="", metavar="NAMES", help="No artifacts of these names."
            ),
            click.Option(
                ["--max-value-size"],
                type=click.IntRange(min=0),
                metavar="BYTES",
                help="Show no value whose stored form is larger.",
            ),
            click.Option(
                ["--raw"],
                is_flag=True,
                help=(
                    "Write the stored bytes of one artifact, as they are: nothing is unpickled, "
                    "and no code of the flow is needed. With -o FILE, or to a pipe."
                ),
            ),
            Accepted(["--private/--no-private"], expose_value=False),
            store_option(),
            click.Option(
                ["--json", "as_json"],
                is_flag=True,
                help='Print JSON; a value that JSON cannot express becomes {"type": …, "repr": …}.',
            ),
        ],
        callback=dump,
        help=(
            "Print the values of artifacts: of one, of all in a task, in every task of a step, or "
            "in a run's last step. If a value cannot be read or shown, stderr says why, the "
            "others are printed, and the exit status is 1."
        ),
        short_help="Print the values of artifacts.",
    )


def _write_raw(data: Chunk, output: Path | None) -> None:
    if output is not None:
        with _writing(output):
            output.write_bytes(data)
    elif takes_bytes(to_stderr=False):
        print_bytes(bytes(data), to_stderr=False)
    else:
        raise click.UsageError("these bytes are not for a terminal: give -o FILE")


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


@contextmanager
def _writing(file: Path) -> Iterator[None]:
    """Within the block, turn a failure to write into an error that names the file."""
    try:
        yield
    except OSError as error:
        message = f"{file} cannot be written to: {error.strerror or error}"
        raise click.ClickException(message) from error
    except ValueError as error:
        message = f"{file} cannot be written: {error}"
        raise click.ClickException(message) from error


# --- events -----------------------------------------------------------------------------------


def make_events(flow: type[FlowSpec] | None, script: str) -> click.Command:  # noqa: ARG001 - as its siblings
    def events(
        run: str, store: Path | str | None, since: int, *, follow: bool, as_json: bool
    ) -> None:
        from asyncflow.cli import follow_events

        found = find(run, store)
        follow_events.print_events(found, since, follow=follow, as_json=as_json)

    return click.Command(
        "events",
        params=[
            pathspec_argument(flow, 2, name="run"),
            _follow_option("Wait for further events, until the run ends."),
            click.Option(
                ["--since"],
                type=click.IntRange(min=0),
                default=0,
                metavar="N",
                help="Only events with a number (seq) above this one.",
            ),
            store_option(),
            click.Option(
                ["--json", "as_json"],
                is_flag=True,
                help="A JSON object on each line, with every field.",
            ),
        ],
        callback=events,
        help="Print every event of a run, in order; RUN is Flow/run.",
        short_help="Print a run's events.",
    )


def print_json(data: object) -> None:
    import json

    click.echo(json.dumps(data, indent=2))
