"""The commands `step` and `spin`: one task again, alone, in this process and terminal."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from asyncflow._support.safe_text import class_name
from asyncflow.cli.common_options import store_option
from asyncflow.cli.completion import pathspecs
from asyncflow.cli.exit_status import FAILED, SUCCEEDED
from asyncflow.cli.run_commands import FlowCommand, flow_of, loading
from asyncflow.errors import AsyncflowError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncflow.client import Task
    from asyncflow.flow.spec import FlowSpec
    from asyncflow.workers.process.single_task import SingleTask


def make_spin(flow: type[FlowSpec] | None, script: str) -> FlowCommand:  # noqa: ARG001 - as its siblings
    @click.pass_context
    def spin(ctx: click.Context, /, pathspec: str, origin: str | None, **options: Any) -> int:
        from asyncflow.engine.one_task import find_task

        options.pop("file", None)
        flow = flow_of(ctx)
        task = find_task(flow, pathspec, options.pop("store"), origin)
        return _run_again(flow, task, **options)

    return FlowCommand(
        "spin",
        flow=flow,
        resumes=True,
        params=[
            click.Argument(["pathspec"], metavar="PATHSPEC"),
            click.Option(
                ["--from", "origin"],
                metavar="RUN",
                help="The run that has the inputs, if PATHSPEC is a step alone: its id, the "
                "beginning of that, or `latest`, which is the default.",
            ),
            *_options(),
        ],
        callback=spin,
        help=(
            "Run one task of an earlier run again, alone, with the inputs that it had. It runs in "
            "this process, so that breakpoint() works, and leaves no run. PATHSPEC is STEP of the "
            "latest run, RUN/STEP or RUN/STEP/TASK; without a task it is the first that failed, "
            "else the first."
        ),
        short_help="Run one task of an earlier run again, alone.",
    )


def make_step(flow: type[FlowSpec] | None, script: str) -> click.Command:  # noqa: ARG001 - as its siblings
    def step(pathspec: str, store: Path | str | None, **options: Any) -> int:
        from asyncflow.engine.one_task import flow_of_task, named_task

        task = named_task(pathspec, store)
        found = flow if flow is not None else loading(task.pathspec, lambda: flow_of_task(task))
        return _run_again(found, task, **options)

    return click.Command(
        "step",
        params=[
            click.Argument(["pathspec"], metavar="RUN/STEP[/TASK]", shell_complete=pathspecs(4)),
            *_options(),
        ],
        callback=step,
        help=(
            "Step into one task of an earlier run: run it again, alone, with the inputs that it "
            "had and the code of its flow's file as it is now. It runs in this process, so that "
            "breakpoint() and input() work, and leaves no run. RUN may be `latest` or the "
            "beginning of an id; without a task it is the first that failed, else the first."
        ),
        short_help="Step into one task of an earlier run.",
    )


def _options() -> list[click.Parameter]:
    return [
        click.Option(
            ["--pdb", "debug"],
            is_flag=True,
            help="If the step fails, open Python's debugger where it has failed.",
        ),
        click.Option(
            ["--artifact", "given"],
            multiple=True,
            metavar="NAME=VALUE",
            help="A value that replaces an inherited one: a literal of Python, else text.",
        ),
        click.Option(
            ["--artifacts-module"],
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            metavar="F",
            help="A Python file whose dict ARTIFACTS has values that replace inherited ones.",
        ),
        click.Option(
            ["--skip-decorators"],
            is_flag=True,
            help="Run the step without decorators of your own.",
        ),
        click.Option(
            ["--keep", "--persist", "keep"],
            is_flag=True,
            help="Keep the task, in a store of its own: DIR_spin beside the store DIR.",
        ),
        click.Option(
            ["--run-id-file"],
            type=click.Path(dir_okay=False, path_type=Path),
            metavar="F",
            help="With --keep: write the id of the run that has the task to this file.",
        ),
        store_option(),
    ]


def _run_again(
    flow: type[FlowSpec],
    task: Task,
    *,
    given: Sequence[str],
    artifacts_module: Path | None,
    run_id_file: Path | None,
    skip_decorators: bool,
    keep: bool,
    debug: bool,
) -> int:
    """Run the task, and say what has come of it on stderr: stdout is the step's."""
    from asyncflow.engine.one_task import prepare_task
    from asyncflow.flow import loader
    from asyncflow.flow.log_records import name_tasks_in_records
    from asyncflow.workers.process.thread_context import install_thread_propagation

    single = prepare_task(flow, task)
    single.open()
    values = {} if artifacts_module is None else _artifacts_of(artifacts_module)
    values |= _artifacts_given(flow, given)
    loader.mark_worker()  # a step starts no engine here either
    install_thread_propagation()
    name_tasks_in_records()
    click.echo(f"Running {task.pathspec} again.", err=True)
    began, failure = time.perf_counter(), None
    try:
        single.run(values, _complain, skip_decorators=skip_decorators)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - a step may raise anything
        failure = error
    seconds = time.perf_counter() - began
    _flush()
    kept = ""
    if keep:
        from asyncflow.engine.kept_task import keep_task

        stored = keep_task(flow, task, single, seconds, failure)
        if run_id_file is not None:
            run_id_file.write_text(stored.parent.parent.id, encoding="utf-8")
        kept = f"asyncflow dump {stored.pathspec} --store {stored.store}"
    said = _success(single, seconds) if failure is None else _failure(failure)
    click.echo(f"{said}\nIt is kept:  {kept}" if kept else said, err=True)
    if failure is None:
        return SUCCEEDED
    if debug and not _has_left_debugger(failure):
        _open_debugger(failure)
    return FAILED


def _open_debugger(error: BaseException) -> None:
    """Open Python's debugger at the line that has raised the error, until the user leaves it."""
    import pdb  # noqa: T100 - the user has asked for it

    from asyncflow._support.tracebacks import past_own_frames

    trace = past_own_frames(error.__traceback__)
    pdb.post_mortem(trace)


def _success(single: SingleTask, seconds: float) -> str:
    names = ", ".join(sorted(single.made)) or "nothing"
    after = ", ".join(single.next_steps)
    goes_on = f", and goes on to {after}" if after else ""
    return f"It ended after {seconds:.3f} s. It has set or read {names}{goes_on}."


def _flush() -> None:
    """What the step has printed stands before what we say of it."""
    sys.stdout.flush()
    sys.stderr.flush()


def _has_left_debugger(error: BaseException) -> bool:
    """Whether the user has ended the step, by `q` in the debugger that `breakpoint()` opens."""
    return class_name(type(error)) == "bdb.BdbQuit"


def _failure(error: BaseException) -> str:
    if _has_left_debugger(error):
        return "You have left the debugger, and so ended the step."
    from asyncflow._support.tracebacks import describe_exception

    return f"\n{describe_exception(error).traceback.rstrip()}\n\nThe step failed."


def _complain(flow: str, name: str, error: str) -> None:
    click.echo(f"Warning: the shared resource {name!r} of {flow} was not closed: {error}", err=True)


def _artifacts_given(flow: type[FlowSpec], given: Sequence[str]) -> dict[str, Any]:
    """The values of `--artifact NAME=VALUE`. That of a parameter has the parameter's type."""
    import ast

    from asyncflow.flow.parameters import parameters_of

    parameters, found = parameters_of(flow), {}
    for each in given:
        name, equals, text = each.partition("=")
        if not equals or not name.isidentifier():
            message = f"--artifact takes NAME=VALUE, as in --artifact rate=0.1, not {each!r}"
            raise click.UsageError(message)
        if name in parameters:
            found[name] = parameters[name].convert(text)
            continue
        try:
            found[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            found[name] = text
    return found


def _artifacts_of(file: Path) -> dict[str, Any]:
    """The dict ARTIFACTS of a Python file."""
    import runpy

    from asyncflow._support.tracebacks import describe_exception

    try:
        found = runpy.run_path(os.fspath(file)).get("ARTIFACTS")
    except (AsyncflowError, KeyboardInterrupt):
        raise
    except BaseException as error:  # a user's file may raise anything
        message = f"{file} cannot be run\n\n{describe_exception(error).traceback.rstrip()}"
        raise click.UsageError(message) from error
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        message = f"{file} has no dict ARTIFACTS of values by name"
        raise click.UsageError(message)
    return found
