"""The commands on a flow: run, resume, check, graph.

Their FILE is loaded while the arguments are parsed, so that the flow's parameters are options like
any other. A script that is run as a program has no FILE, because its flow is loaded already.
"""

from __future__ import annotations

import io
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from asyncflow._support.paths import absolute
from asyncflow.cli import metaflow_options
from asyncflow.cli.common_options import store_option
from asyncflow.cli.completion import files, pathspecs
from asyncflow.cli.executor_options import executor_options
from asyncflow.cli.final_report import Program
from asyncflow.cli.flow_options import (
    CONFIG_OPTIONS,
    clash,
    given_configs,
    given_parameters,
    options_of,
    parameters_section,
    run_choices,
)
from asyncflow.errors import AsyncflowError, FlowError, ParameterError
from asyncflow.flow.delayed_values import has_configs

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from asyncflow.engine.engine import Engine
    from asyncflow.engine.run_handle import RunHandle
    from asyncflow.engine.starter import Starter
    from asyncflow.flow.spec import FlowSpec
    from asyncflow.scheduling.resume_preview import StepPreview

_SILENT_SECONDS: Final = 10.0  # without a task that is taken over; they come by hundreds at once
_FLOW: Final = "asyncflow.flow"  # the key of the flow class in a context


class FlowCommand(click.Command):
    """A command on a flow.

    With `parameters`, the flow's parameters are options of it; with `resumes`, it takes the
    configurations of another run.
    """

    def __init__(
        self,
        name: str,
        *,
        flow: type[FlowSpec] | None,
        parameters: bool = False,
        resumes: bool = False,
        **attributes: Any,
    ) -> None:
        params = attributes.pop("params", [])
        if flow is None:
            file = click.Argument(["file"], metavar="FILE[:Flow]", shell_complete=files)
            params = [file, *params]
        super().__init__(name, params=params, **attributes)
        self._flow = flow
        self._takes_parameters = parameters
        self._resumes = resumes

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Find the flow first: only it knows what the other arguments mean."""
        if ctx.resilient_parsing:  # a shell asks what may come next
            return self._parse_unfinished(ctx, args)
        flow = self._flow or self._find_flow(ctx, args)
        if flow is not None:
            flow = self._prepared(ctx, flow, args)
            ctx.meta[_FLOW] = flow
            if self._takes_parameters:
                self._refuse_clash(ctx, flow)
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            if self._resumes and flow is not None:
                _refuse_parameter(error, flow)
            raise

    def _parse_unfinished(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse what the user has typed so far; a flow that can be loaded tells its parameters."""
        with suppress(AsyncflowError, click.ClickException), redirect_stdout(io.StringIO()):
            flow = self._flow or self._find_flow(ctx, args)
            if flow is not None:
                ctx.meta[_FLOW] = self._prepared(ctx, flow, args)
        return super().parse_args(ctx, args)

    def _prepared(
        self, ctx: click.Context, flow: type[FlowSpec], args: Sequence[str]
    ) -> type[FlowSpec]:
        """The flow with its configurations, which say what parameters it has."""
        places: list[Mapping[str, Any]] = [ctx.find_root().params]
        if has_configs(flow):  # else `--config` may be a parameter
            parser = super().make_parser(ctx)
            parser.ignore_unknown_options = True
            places.append(parser.parse_args(list(args))[0])
        given = given_configs(*places)
        if self._resumes:
            if given:
                message = "the configs are those of the earlier run: leave --config out"
                raise click.UsageError(message, ctx)
            return flow if has_configs(flow) else _prepare(flow, {})
        try:
            return _prepare(flow, given)
        except ParameterError:
            if not {"--help", "-h"}.isdisjoint(args):  # it lists what is missing
                return flow
            raise

    def _find_flow(self, ctx: click.Context, args: Sequence[str]) -> type[FlowSpec] | None:
        parser = super().make_parser(ctx)
        parser.ignore_unknown_options = True
        if not args:
            return None
        found, _, _ = parser.parse_args(list(args))
        file = found.get("file")
        if not isinstance(file, str):  # click reports what is missing
            return None
        if file.startswith("-"):
            message = f"FILE comes before the flow's parameters, but here {file} comes first"
            raise click.UsageError(message, ctx)
        return load(file)

    def _refuse_clash(self, ctx: click.Context, flow: type[FlowSpec]) -> None:
        params = (each for each in super().get_params(ctx) if not _gives_way(each))
        own = {option for param in params for option in param.opts}
        name = clash(flow, own)
        if name is not None:
            message = (
                f"the parameter {name!r} of {flow.__name__} has the name of an option of this "
                f"command: call it something else, or run the flow from Python, where it does "
                f"not matter: asyncflow.run_sync({flow.__name__}, {name}=...)"
            )
            raise click.UsageError(message, ctx)

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The command's own parameters, and the flow's as soon as it is known."""
        params = super().get_params(ctx)
        flow = ctx.meta.get(_FLOW)
        if flow and not has_configs(flow):
            params = [each for each in params if each.name not in CONFIG_OPTIONS]
        if not (flow and self._takes_parameters):
            return params
        kept = (each for each in params if not (_gives_way(each) and clash(flow, each.opts)))
        return [*kept, *options_of(flow)]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The flow's parameters in a section of their own, then the command's options."""
        flow = ctx.meta.get(_FLOW)
        if flow and self._takes_parameters:
            parameters_section(flow, formatter)
        params = super().get_params(ctx)
        own = [p.get_help_record(ctx) for p in params if isinstance(p, click.Option)]
        with formatter.section("Options"):
            formatter.write_dl([record for record in own if record is not None])

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """What the command does, and the flow's docstring."""
        super().format_help_text(ctx, formatter)
        flow = ctx.meta.get(_FLOW)
        if flow is not None and flow.__doc__:
            import inspect

            with formatter.section(flow.__name__):
                for paragraph in inspect.cleandoc(flow.__doc__).split("\n\n"):
                    formatter.write_paragraph()
                    formatter.write_text(paragraph)


def _gives_way(param: click.Parameter) -> bool:
    """Whether a parameter of the flow may have the option's name."""
    return isinstance(param, metaflow_options.Accepted)


def load(file: str) -> type[FlowSpec]:
    """The flow of a file; an error of the user's code shows its own frames."""
    from asyncflow.flow.loader import load_flow
    from asyncflow.flow.log_records import name_tasks_in_records

    name_tasks_in_records()  # as in the workers: the file may set up logging for both
    return loading(file, lambda: load_flow(file))


def loading(what: str, load_it: Callable[[], type[FlowSpec]]) -> type[FlowSpec]:
    """The flow that a call imports; `what` names it in the error of the user's code."""
    try:
        return load_it()
    except (AsyncflowError, KeyboardInterrupt):
        raise
    except BaseException as error:  # a user's module may raise anything, even SystemExit
        message = f"{what} cannot be imported\n\n{_traceback(error)}"
        raise FlowError(message) from error


def _prepare(flow: type[FlowSpec], configs: Mapping[str, object]) -> type[FlowSpec]:
    """Configure a flow, and have its mutators change it: both may give it parameters."""
    from asyncflow.flow.graph_reader import prepare

    try:
        return prepare(flow, configs)
    except (AsyncflowError, KeyboardInterrupt):
        raise
    except BaseException as error:  # a user's mutator may raise anything
        message = f"a mutator of {flow.__name__} has failed\n\n{_traceback(error)}"
        raise FlowError(message) from error


def _traceback(error: BaseException) -> str:
    """The traceback with the user's own frames."""
    from asyncflow._support.tracebacks import describe_exception

    return describe_exception(error).traceback.rstrip("\n")


def flow_of(ctx: click.Context) -> type[FlowSpec]:
    """The flow that the command is about."""
    flow: type[FlowSpec] = ctx.meta[_FLOW]
    return flow


def _running_options() -> list[click.Parameter]:
    return [
        click.Option(
            ["--workers", "--max-workers"],
            type=click.IntRange(min=0),
            metavar="N",
            help="The most worker processes; 0, the default, means as many as there are CPUs.",
        ),
        *executor_options(),
        click.Option(
            ["--max-running-tasks"],
            type=click.IntRange(min=0),
            metavar="N",
            help="The most tasks of the run that workers may have at a time; by default no limit.",
        ),
        store_option(),
        click.Option(
            ["--tag", "tags"], multiple=True, metavar="T", help="A tag for the run; repeatable."
        ),
        click.Option(
            ["--run-id-file"],
            type=click.Path(dir_okay=False, path_type=Path),
            metavar="F",
            help="Write the run id to this file as soon as it is known.",
        ),
        click.Option(
            ["--grace"],
            type=click.FloatRange(min=0),
            metavar="SECONDS",
            help="The time between SIGTERM and SIGKILL for steps when the run ends early.",
        ),
        click.Option(
            ["--on-failure"],
            type=click.Choice(["cancel", "finish"]),
            help="What a failed task does to running ones; by default cancel.",
        ),
        click.Option(
            ["--log"],
            type=click.Choice(["bars", "prints", "full"]),
            help=(
                "What to show: what tasks print, with bars for the steps (bars, on a terminal) or "
                "without (prints), and a summary; or all that tasks do (full, elsewhere)."
            ),
        ),
        click.Option(
            ["--log-json"],
            is_flag=True,
            help="Write the log as JSON: an object on each line, for a collector of logs.",
        ),
        click.Option(
            ["--otel"],
            is_flag=True,
            help="Trace the run with OpenTelemetry, by the provider that the flow's file sets up.",
        ),
        click.Option(
            ["--quiet"], is_flag=True, help="Show failures and the last line only, and no warnings."
        ),
        click.Option(
            ["--json", "as_json"],
            is_flag=True,
            help="Print the result as JSON; the log goes to stderr.",
        ),
        *metaflow_options.of_runs(),
        *run_choices(),
    ]


def _carry_through(
    ctx: click.Context, program: Program, start: Callable[[Engine], Awaitable[RunHandle]]
) -> int:
    """Start the run, show it, and return the exit status."""
    from asyncflow.cli.session import SessionOptions, carry_through

    before = ctx.find_root().params  # the words before the command
    named = ctx.params.get("decorators") or ()
    wanted = [*(before.get("decorators") or ()), *named]
    if wanted:
        from asyncflow.flow.added_decorators import decorate

        decorate(flow_of(ctx), wanted)
    # a parameter of the flow may have taken the place of an option
    given: dict[str, Any] = {name: ctx.params.get(name) for name in SessionOptions._fields}
    given["quiet"] = given["quiet"] or before.get("quiet", False)
    options = SessionOptions(**given)
    if options.log_json and (options.log is not None or options.quiet):
        message = "--log-json writes the whole log: leave --log and --quiet out"
        raise click.UsageError(message, ctx)
    if not options.quiet:
        metaflow_options.say_without_effect(ctx)
    for file in (options.run_id_file, options.runner_attribute_file):
        if file is not None and not absolute(file).parent.is_dir():
            message = f"there is no folder {file.parent}: make it, or name a file elsewhere"
            raise click.UsageError(message, ctx)
    return carry_through(start, options, program)


def _placed(ctx: click.Context, engine: Engine) -> Starter:
    """A starter of runs in the branch that the options name."""
    before = ctx.find_root().params
    branch = ctx.params["branch"] or before.get("branch")
    return engine.options(
        branch=branch, production=ctx.params["production"] or before.get("production")
    )


def _program(ctx: click.Context, script: str) -> Program:
    store: Path | str | None = ctx.params.get("store")
    options = () if store is None else ("--store", str(store))
    if script:
        return Program(command=("python", script), options=options)
    return Program(file=(ctx.params["file"],), options=options)


def _key_options() -> list[click.Parameter]:
    return [
        click.Option(
            ["--key"],
            metavar="K",
            help=(
                "Names the run: if there is one with this key, in whatever process, it is shown to "
                "its end, and none is started."
            ),
        ),
        click.Option(["--again"], is_flag=True, help="With --key, start another run of the key."),
    ]


def _refuse_parameter(error: click.NoSuchOption, flow: type[FlowSpec]) -> None:
    """Say why a resume takes no parameters, if this is one."""
    if any(error.option_name in option.opts for option in options_of(flow)):
        message = (
            f"{error.option_name} cannot be given: a resume goes on with the parameters of its "
            f"origin; for other values start a new run: asyncflow run"
        )
        raise click.UsageError(message, error.ctx) from error


def make_run(flow: type[FlowSpec] | None, script: str) -> FlowCommand:
    @click.pass_context
    def run(ctx: click.Context, /, **_: Any) -> int:
        flow = flow_of(ctx)
        given = given_parameters(flow, ctx.params)
        tags, key, again = ctx.params["tags"], ctx.params["key"], ctx.params["again"]
        if again and key is None:
            message = "--again needs --key: without a key, each start makes another run"
            raise click.UsageError(message)

        def keyed(engine: Engine) -> Starter:
            return _placed(ctx, engine).options(key=key, again=again)

        return _carry_through(
            ctx,
            _program(ctx, script),
            lambda engine: keyed(engine).start(flow, tags=tags, **given),
        )

    return FlowCommand(
        "run",
        flow=flow,
        parameters=True,
        params=[*_running_options(), *_key_options()],
        callback=run,
        help="Run a flow. Its parameters are options; `run FILE --help` lists them.",
        short_help="Run a flow.",
    )


def make_resume(flow: type[FlowSpec] | None, script: str) -> FlowCommand:
    @click.pass_context
    def resume(ctx: click.Context, /, step: str | None, origin_run_id: str | None, **_: Any) -> int:
        flow = flow_of(ctx)
        origin_run_id = _whole_id(ctx, flow, origin_run_id)
        if ctx.params["only_plan"]:
            _print_plan(ctx, flow, origin_run_id, step)
            return 0
        _check_store(ctx)
        clones = _clones(ctx, flow, origin_run_id, step) if ctx.params["clone_only"] else None
        tags = ctx.params["tags"]

        async def start(engine: Engine) -> RunHandle:
            starter = _placed(ctx, engine)
            handle = await starter.start_resumed(flow, origin=origin_run_id, step=step, tags=tags)
            if clones is not None:
                await _cancel_after(handle, clones)
            return handle

        return _carry_through(ctx, _program(ctx, script), start)

    return FlowCommand(
        "resume",
        flow=flow,
        resumes=True,
        params=[
            click.Argument(["step"], required=False),
            click.Option(
                ["--origin-run-id"],
                metavar="ID",
                shell_complete=pathspecs(2),
                help="The run to resume, by its id or as FLOW/ID; by default the flow's "
                "latest. What succeeded there is not run again.",
            ),
            click.Option(
                ["--plan", "only_plan"],
                is_flag=True,
                help="Show for each step what would be reused and what run, and why; run nothing.",
            ),
            metaflow_options.Accepted(["--clone-only"], is_flag=True),
            *_running_options(),
        ],
        callback=resume,
        help="Resume an earlier run where it failed or was stopped, or run again from STEP on.",
        short_help="Resume a run where it failed or was stopped.",
    )


def _check_store(ctx: click.Context) -> None:
    """Refuse a store that does not exist: an engine would create it, with nothing to resume."""
    from asyncflow._support.settings import Settings
    from asyncflow.store import open_store

    open_store(Settings.read(store=ctx.params["store"]).store)


def _clones(
    ctx: click.Context, flow: type[FlowSpec], origin: str | None, step: str | None
) -> int | None:
    """How many tasks `--clone-only` takes over; None if nothing would be run anyway."""
    _, steps = _planned(ctx, flow, origin, step)
    runs = any(each.to_run or each.open_ended for each in steps)
    return sum(each.reused for each in steps) if runs else None


async def _cancel_after(handle: RunHandle, clones: int) -> None:
    """Cancel a run that has no workers, once it has taken over so many tasks."""
    import asyncio

    from asyncflow.events.types import TaskCloned

    loop = asyncio.get_running_loop()
    with suppress(TimeoutError):  # there were fewer than the plan has said
        async with asyncio.timeout(_SILENT_SECONDS if clones else 0) as silence:
            async for _ in handle.events(TaskCloned):
                silence.reschedule(loop.time() + _SILENT_SECONDS)
                clones -= 1
                if not clones:
                    break
    handle.cancel("--clone-only runs nothing")


def _whole_id(ctx: click.Context, flow: type[FlowSpec], given: str | None) -> str | None:
    """The run to resume, if it was given by a short name."""
    if given is None or "/" in given:
        return given
    from asyncflow._support.settings import Settings
    from asyncflow.client.run_names import may_be_run, whole_name
    from asyncflow.store import open_store

    if not may_be_run(given):
        return given
    store = open_store(Settings.read(store=ctx.params["store"]).store)
    return whole_name(store, f"{flow.__name__}/{given}")


def _planned(
    ctx: click.Context, flow: type[FlowSpec], origin: str | None, step: str | None
) -> tuple[str, Sequence[StepPreview]]:
    """The run that would be resumed, and the plan for each step."""
    from asyncflow._support.settings import Settings
    from asyncflow.engine.arguments import check_origin
    from asyncflow.scheduling.resume import newest_run
    from asyncflow.scheduling.resume_preview import preview_resume
    from asyncflow.store import open_store

    origin = check_origin(flow, origin)
    store = Settings.read(store=ctx.params["store"]).store
    if origin is None:
        origin = newest_run(open_store(store), flow.__name__)
    return origin, preview_resume(flow, store=store, origin=origin, step=step)


def _print_plan(
    ctx: click.Context, flow: type[FlowSpec], origin: str | None, step: str | None
) -> None:
    from asyncflow.cli.resume_preview_text import plan_lines
    from asyncflow.scheduling.resume_preview import plan_data

    origin, steps = _planned(ctx, flow, origin, step)
    if ctx.params["as_json"]:
        import json

        click.echo(json.dumps(plan_data(steps)))
    else:
        click.echo("\n".join(plan_lines(f"{flow.__name__}/{origin}", steps)))


def make_check(flow: type[FlowSpec] | None, script: str) -> FlowCommand:  # noqa: ARG001 - as its siblings
    @click.pass_context
    def check(ctx: click.Context, /, **_: Any) -> None:
        from asyncflow.flow.graph_reader import read_graph

        flow = flow_of(ctx)
        steps = len(list(read_graph(flow)))
        click.echo(f"{flow.__name__} can be run: {steps} steps.")

    return FlowCommand(
        "check",
        flow=flow,
        params=list(run_choices()),
        callback=check,
        help="Check whether a flow's steps form a graph that can be run. Runs nothing.",
        short_help="Check whether a flow can be run.",
    )


def make_graph(flow: type[FlowSpec] | None, script: str) -> FlowCommand:  # noqa: ARG001 - as its siblings
    @click.pass_context
    def graph(ctx: click.Context, /, picture: str, **_: Any) -> None:
        from asyncflow.flow.graph_drawing import DRAWINGS
        from asyncflow.flow.graph_reader import read_graph

        steps = read_graph(flow_of(ctx))
        if picture == "json":
            import json

            click.echo(json.dumps(steps.to_data(), indent=2))
            return
        drawn = DRAWINGS[picture](steps)
        click.echo(drawn.rstrip("\n"))

    return FlowCommand(
        "graph",
        flow=flow,
        params=[
            click.Option(
                ["--format", "picture"],
                type=click.Choice(["text", "dot", "mermaid", "json"]),
                default="text",
                show_default=True,
                help="How to draw it: for people, for Graphviz, for Markdown, or as JSON.",
            ),
            metaflow_options.Accepted(["--json"], is_flag=True, expose_value=False),
            *run_choices(),
        ],
        callback=graph,
        help="Draw the steps of a flow and how they follow each other.",
        short_help="Draw a flow's steps.",
    )
