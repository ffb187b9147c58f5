"""What `--follow` shows until the run ends: its events, or the output of its tasks."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

from asyncflow._support.seldom_collected import seldom_collected
from asyncflow.cli import tables
from asyncflow.cli.event_lines import EventLines
from asyncflow.client import Run
from asyncflow.client.event_stream import EventStream
from asyncflow.errors import NotFoundError
from asyncflow.events.selection import EveryRecord
from asyncflow.events.types import TaskCloned, TaskEvent, TaskFailed, TaskLogged, TaskSucceeded

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


_WRITTEN_TOGETHER: Final = 200  # records


def print_events(run: Run, since: int, *, follow: bool, as_json: bool) -> None:
    """Print a line for each event; flush before waiting for the next one."""
    stream = EventStream(run.follower(EveryRecord(since), follow=follow))
    lines = EventLines(as_json=as_json)
    with seldom_collected():
        for first in stream:
            ready = [first, *stream.ready()]
            for begin in range(0, len(ready), _WRITTEN_TOGETHER):
                # a call for each line takes as long as the line
                sys.stdout.write(lines.of_all(ready[begin : begin + _WRITTEN_TOGETHER]))
            sys.stdout.flush()


def output_of(
    pathspec: str, store: Path | str | None, streams: set[str]
) -> Iterator[tuple[str, str]]:
    """The output of a run, a step or a task, as `logs` shows it, each part with its stream.

    A step or a task need not have begun.

    Raises:
        NotFoundError: There is no such run or step, or the run has ended without the task.
        RunInterruptedError: The run's engine is gone without recording an end.
    """
    flow, run_id, *rest = pathspec.split("/")
    run = Run(f"{flow}/{run_id}", store=store)
    if rest and rest[0] not in run.graph.nodes:
        message = f"flow {flow} has no step {rest[0]!r}; it has {', '.join(run.graph.nodes)}"
        raise NotFoundError(message)
    if len(rest) > 1:
        yield from _output_of_task(run, rest[0], rest[1], streams or {"stdout", "stderr"})
        return
    events = run.events(follow=True)
    for text in tables.log_lines(events, rest[0] if rest else None, streams):
        yield "stdout", text


def _output_of_task(
    run: Run, step: str, task_id: str, streams: set[str]
) -> Iterator[tuple[str, str]]:
    """A task's output in its current attempt and in later ones, and why each failed.

    The failure comes if both streams are asked for, on a line of its own.
    """
    open_line = False
    begun = step in run and task_id in run[step]
    attempt = run[step][task_id].attempt if begun else 0
    for event in run.events(TaskEvent, follow=True):
        if (event.step, event.task_id) != (step, task_id):
            continue
        match event:
            case TaskLogged() if event.stream in streams and event.attempt >= attempt:
                yield event.stream, f"{event.line}{event.end}"
                if event.stream == "stderr":
                    open_line = not event.end
            case TaskCloned():  # a cloned task's output is stored with the task that did the work
                task = run[step][task_id]
                for stream in sorted(streams, reverse=True):
                    yield from ((stream, text) for text in task.printed(stream))
                return
            case TaskSucceeded():
                return
            case TaskFailed() if not (event.will_retry or event.caught):
                if len(streams) > 1:
                    told = event.traceback or f"{event.exception_type}: {event.message}"
                    yield "stderr", "\n" * open_line + told.rstrip("\n") + "\n"
                return
    message = f"{run.pathspec} has ended, and has no task {step}/{task_id} that did"
    raise NotFoundError(message)
