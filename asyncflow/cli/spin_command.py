"""The command `spin`: one task again, alone, in this process and terminal."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from asyncflow.cli.common_options import store_option
from asyncflow.cli.exit_status import FAILED, SUCCEEDED
from asyncflow.cli.run_commands import FlowCommand, flow_of
from asyncflow.errors import AsyncflowError

if TYPE_CHECKING:
    from asyncflow.flow.spec import FlowSpec
    from asyncflow.workers.process.single_task import SingleTask


def make_spin(flow: type[FlowSpec] | None, script: str) -> FlowCommand:  # noqa: ARG001 - as its siblings
    @click.pass_context
    def spin(ctx: click.Context, /, **options: Any) -> int:
        options.pop("file", None)
        return _spin(flow_of(ctx), **options)

    return FlowCommand(
        "spin",
        flow=flow,
        resumes=True,
        params=[
            click.Argument(["pathspec"], metavar="PATHSPEC"),
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
                ["--persist"],
                is_flag=True,
                help="Keep the task, in a store of its own: DIR_spin beside the store DIR.",
            ),
            click.Option(
                ["--run-id-file"],
                type=click.Path(dir_okay=False, path_type=Path),
                metavar="F",
                help="With --persist: write the id of the run that has the task to this file.",
            ),
            store_option(),
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


def _spin(
    flow: type[FlowSpec],
    pathspec: str,
    store: Path | str | None,
    artifacts_module: Path | None,
    run_id_file: Path | None,
    *,
    skip_decorators: bool,
    persist: bool,
) -> int:
    """Run the task, and say what has come of it on stderr: stdout is the step's."""
    from asyncflow.engine.one_task import find_task, prepare_task
    from asyncflow.flow import loader
    from asyncflow.workers.process.thread_context import install_thread_propagation

    task = find_task(flow, pathspec, store)
    single = prepare_task(flow, task)
    single.open()
    given = {} if artifacts_module is None else _artifacts_of(artifacts_module)
    loader.mark_worker()  # a step starts no engine here either
    install_thread_propagation()
    click.echo(f"Running {task.pathspec} again.", err=True)
    began, failure = time.perf_counter(), None
    try:
        single.run(given, _complain, skip_decorators=skip_decorators)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - a step may raise anything
        failure = error
    seconds = time.perf_counter() - began
    _flush()
    kept = ""
    if persist:
        from asyncflow.engine.kept_task import keep_task

        stored = keep_task(flow, task, single, seconds, failure)
        if run_id_file is not None:
            run_id_file.write_text(stored.parent.parent.id, encoding="utf-8")
        kept = f"asyncflow dump {stored.pathspec} --store {stored.store}"
    said = _success(single, seconds) if failure is None else _failure(failure)
    click.echo(f"{said}\nIt is kept:  {kept}" if kept else said, err=True)
    return SUCCEEDED if failure is None else FAILED


def _success(single: SingleTask, seconds: float) -> str:
    names = ", ".join(sorted(single.made)) or "nothing"
    after = ", ".join(single.next_steps)
    goes_on = f", and goes on to {after}" if after else ""
    return f"It ended after {seconds:.3f} s. It has set or read {names}{goes_on}."


def _flush() -> None:
    """What the step has printed stands before what we say of it."""
    sys.stdout.flush()
    sys.stderr.flush()


def _failure(error: BaseException) -> str:
    from asyncflow._support.tracebacks import describe_exception

    return f"\n{describe_exception(error).traceback.rstrip()}\n\nThe step failed."


def _complain(flow: str, name: str, error: str) -> None:
    click.echo(f"Warning: the shared resource {name!r} of {flow} was not closed: {error}", err=True)


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
