"""The report at a run's end: what failed, where to look, how to go on. Values in, text out."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from asyncflow._quick_classes import NamedTuple
from asyncflow._support.terminal_text import visible_line
from asyncflow.events.types import RunCancelled, RunFailed, RunSucceeded
from asyncflow.values import Status

if TYPE_CHECKING:
    from asyncflow.events.types import Event
    from asyncflow.values import Failure


class Program(NamedTuple):
    """How the user started this program, so that a command in a message works when pasted."""

    command: tuple[str, ...] = ("asyncflow",)
    """`asyncflow`, or `python FILE`."""
    file: tuple[str, ...] = ()
    """`FILE` or `FILE:Flow`, if the command does not imply it."""
    options: tuple[str, ...] = ()
    """Options to repeat, such as `--store DIR`."""

    def resume(self, run_id: str, step: str = "") -> str:
        """The command that resumes a run, or that runs it again from a step on."""
        words = [*self.command, "resume", *self.file, *([step] if step else [])]
        return shlex.join([*words, "--origin-run-id", run_id, *self.options])

    def show(self, pathspec: str) -> str:
        """The command that shows a run."""
        return shlex.join([*self.command, "show", pathspec, *self.options])

    def logs(self, pathspec: str) -> str:
        """The command that shows what a task printed."""
        return shlex.join([*self.command, "logs", pathspec, *self.options])


def failure_text(
    flow: str,
    run_id: str,
    failure: Failure,
    program: Program,
    repeat: str = "",
    item: str = "",
) -> str:
    """Which task failed at which attempt, the user's traceback, the log, and how to resume.

    `repeat` is the step to run again from, if resuming from the failed task is not enough. `item`
    is the task's item of a foreach, as a short text.
    """
    lines = ["", _headline(flow, run_id, failure, item), ""]
    traceback = failure.traceback or f"{failure.exception_type}: {failure.message}"
    lines += [f"    {visible_line(line)}" for line in traceback.rstrip("\n").split("\n")]
    lines.append("")
    if failure.task_id:
        task = f"{flow}/{run_id}/{failure.step}/{failure.task_id}"
        lines.append(f"What it printed:  {program.logs(task)}")
    lines.append(f"To go on:         {program.resume(run_id, repeat)}")
    return "\n".join(lines) + "\n"


def _headline(flow: str, run_id: str, failure: Failure, item: str) -> str:
    if not failure.task_id:
        return f"The run {flow}/{run_id} failed."
    task = f"{flow}/{run_id}/{failure.step}/{failure.task_id}"
    which = f" for {visible_line(item)}" if item else ""
    return f"Step {failure.step} failed{which}: task {task}, attempt {failure.attempt}."


def cancelled_text(flow: str, run_id: str, program: Program) -> str:
    """Says that nothing is lost, and how to go on."""
    return (
        f"\nThe run {flow}/{run_id} was cancelled; its finished tasks are kept.\n"
        f"To go on:  {program.resume(run_id)}\n"
    )


def cloned_text(flow: str, run_id: str, program: Program) -> str:
    """Says that tasks were taken over and none was run, and how to go on."""
    return (
        f"\nThe run {flow}/{run_id} has what had finished; nothing was run.\n"
        f"To go on:  {program.resume(run_id)}\n"
    )


def broken_text(flow: str, run_id: str, error: Exception, program: Program) -> str:
    """Says that the engine could not finish a run, why, and how to go on."""
    return (
        f"\nThe run {flow}/{run_id} was interrupted: {visible_line(str(error))}\n"
        f"Its finished tasks are kept.\n"
        f"To go on:  {program.resume(run_id)}\n"
    )


def broken_data(flow: str, run_id: str, error: Exception, program: Program) -> dict[str, Any]:
    """The same as plain data for JSON; no event says how the run ended."""
    return {
        "flow": flow,
        "run_id": run_id,
        "pathspec": f"{flow}/{run_id}",
        "status": str(Status.INTERRUPTED),
        "seconds": None,
        "failure": {"type": type(error).__name__, "message": str(error)},
        "resume": program.resume(run_id),
    }


def status_of(ending: Event) -> Status:
    """The run's status after its last event."""
    match ending:
        case RunSucceeded():
            return Status.SUCCEEDED
        case RunFailed():
            return Status.FAILED
        case RunCancelled():
            return Status.CANCELLED
        case _:
            return Status.INTERRUPTED


def result_data(ending: Event, program: Program, repeat: str = "") -> dict[str, Any]:
    """A run's result as plain data for JSON; `repeat` as for `failure_text`."""
    status = status_of(ending)
    data: dict[str, Any] = {
        "flow": ending.flow,
        "run_id": ending.run_id,
        "pathspec": f"{ending.flow}/{ending.run_id}",
        "status": str(status),
        "seconds": round(getattr(ending, "seconds", 0.0), 6),
        "failure": None,
        "resume": None if status is Status.SUCCEEDED else program.resume(ending.run_id, repeat),
    }
    if isinstance(ending, RunFailed):
        from asyncflow.client.json_data import failure_data

        data["failure"] = failure_data(ending.flow, ending.run_id, ending.failure, ending.item)
    return data
