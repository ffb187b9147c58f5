"""What the client knows, as lines for people; `asyncflow.client.json_data` has it for programs."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

from asyncflow._support.terminal_text import visible_line
from asyncflow.client import Artifact, Flow, Run, Step, Task
from asyncflow.client.json_data import Standings, caught_in, parameters_of
from asyncflow.client.limit_data import limits_of
from asyncflow.client.live_run import expected_of, live_data
from asyncflow.client.log_text import LogRenderer
from asyncflow.client.resume_hint import resume_command
from asyncflow.client.words import how_large, how_long, how_many
from asyncflow.errors import JournalError
from asyncflow.events.records import OF_TASKS, step_of
from asyncflow.events.types import (
    STOPPED,
    TaskEvent,
    TaskFailed,
    TaskLogged,
    TaskSucceeded,
)
from asyncflow.store.limit_files import Bounds
from asyncflow.values import Status, shown_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from asyncflow.client.json_data import Found
    from asyncflow.events.types import Event
    from asyncflow.values import Failure

_RECORDS_AT_ONCE = 200  # of which the text is written in one call


# --- runs -------------------------------------------------------------------------------------


def runs_table(runs: Iterable[Run]) -> Iterator[str]:
    standings = Standings()
    head = ("RUN", "STATUS", "STARTED", "TOOK", "TAGS")
    rows = (
        (
            run.pathspec,
            standings.of(run),
            local(run.created_at),
            _took(run.seconds),
            _tags(run),
        )
        for run in runs
    )
    return table(head, rows)


def _tags(run: Run) -> str:
    return " ".join(tag if tag.isprintable() else repr(tag) for tag in sorted(run.user_tags))


# --- whatever a pathspec names ----------------------------------------------------------------


def lines_of(found: Found, limit: int) -> Iterator[str]:
    """Describe it for people; list at most `limit` of its parts, 0 for all."""
    match found:
        case Flow():
            yield from runs_table(islice(found, limit or None))
        case Run():
            yield from _run_lines(found)
        case Step():
            yield from _step_lines(found, limit)
        case Task():
            yield from _task_lines(found)
        case Artifact():
            yield from _fields(
                ("artifact", found.pathspec),
                ("type", found.type_name),
                ("size", f"{found.size:,} bytes"),
                ("sha", found.sha),
                ("created", local(found.created_at)),
            )


def _run_lines(run: Run) -> Iterator[str]:
    yield from _fields(
        ("run", run.pathspec),
        ("status", str(run.status)),
        ("started", f"{local(run.created_at)} by {run.user}"),
        ("took", _took(run.seconds)),
        *_live_fields(run),
        ("tags", _tags(run)),
        ("resumes", run.origin_run_id or ""),
        ("resumed as", " ".join(run.resumed_as)),
        ("to go on", _how_to_go_on(run)),
        *(("limit", _limit_text(limit)) for limit in limits_of(run)),
    )
    parameters = parameters_of(run)
    if parameters:
        yield ""
        yield "parameters"
        yield from (f"  {name} = {visible_line(text)}" for name, text in parameters.items())
    yield ""
    caught = caught_in(run)
    rows = ((step.id, *_tasks(step, caught)) for step in run)
    yield from table(("STEP", "TASKS", "STATUS"), [*rows, *_steps_to_come(run)])
    yield from _failure_lines(run.failure, item=run.failed_item)


def _live_fields(run: Run) -> list[tuple[str, str]]:
    """How a run stands that goes on."""
    if run.status is not Status.RUNNING:
        return []
    data = live_data(run)
    fields = [
        ("running", f"for {how_long(data['so_far'])}, in process {data['pid']} of {data['host']}")
    ]
    if data["total"] is not None:
        fields.append(("done", f"{data['done']:,} of {how_many(data['total'], 'task')}"))
    slowest = data["slowest"]
    if slowest is not None:
        item = f" for {slowest['item']}" if slowest["item"] else ""
        where = f"{slowest['step']}/{slowest['task_id']}{item}"
        fields.append(("slowest", f"{where}, for {how_long(slowest['so_far'])} so far"))
    return [*fields, *(("waiting", wait["text"]) for wait in data["waits"])]


def _steps_to_come(run: Run) -> Iterator[tuple[str, str, str]]:
    """The steps of a run that goes on of which no task has begun, if their number is known."""
    if run.status is Status.RUNNING:
        for step, expected in expected_of(run).items():
            if expected and step not in run:
                yield step, f"0 of {expected:,}", ""


def _tasks(step: Step, caught: Mapping[str, int] | None) -> tuple[str, str]:
    """How many tasks of a step there are, and how they stand."""
    told, expected = f"{step.task_count:,}", None
    if step.parent.status is Status.RUNNING:
        expected = expected_of(step.parent)[step.id]
    if expected is not None:
        told = f"{step.counts().get(Status.SUCCEEDED, 0):,} of {expected:,}"
    return told, _counts(step, caught)


def _how_to_go_on(run: Run) -> str:
    """The command that resumes a run that has not succeeded, unless one has resumed it."""
    if run.status in {Status.RUNNING, Status.SUCCEEDED} or run.resumed_as:
        return ""
    return resume_command(run._record.stored)  # noqa: SLF001 - parts of one package


def _limit_text(limit: dict[str, Any]) -> str:
    allowed = Bounds(limit["at_once"], limit["per_second"])
    return f"{limit['name']} of step {limit['step']}: {allowed}; {use_of_limit(limit)}"


def use_of_limit(limit: Mapping[str, Any]) -> str:
    """How much of a limit is in use, and how many engines wait, in words."""
    waiting = limit["engines_waiting"]
    engines = f", {how_many(waiting, 'engine')} waiting" if waiting else ""
    return f"{limit['in_use']} in use{engines}"


def _counts(step: Step, caught: Mapping[str, int] | None) -> str:
    told = ", ".join(f"{count:,} {status}" for status, count in step.counts().items())
    if caught is None:
        return f"{told} (how many were caught cannot be read: the journal is damaged)"
    return f"{told} ({caught[step.id]:,} caught)" if step.id in caught else told


def _step_lines(step: Step, limit: int) -> Iterator[str]:
    yield from _fields(("step", step.pathspec), ("tasks", _counts(step, caught_in(step.parent))))
    yield ""
    rows = (
        (
            task.id,
            str(task.status),
            local(task.created_at),
            _took(task.seconds),
            _took(task.cpu_seconds),
            _size(task.peak_memory),
            shown_path(task.key.path),
            task.item,
        )
        for task in islice(step, limit or None)
    )
    head = ("TASK", "STATUS", "STARTED", "TOOK", "CPU", "MEMORY", "INDEX", "ITEM")
    yield from table(head, rows)
    hidden = step.task_count - limit
    if limit and hidden > 0:
        yield f"… and {hidden:,} more: --limit 0 lists all"


def _task_lines(task: Task) -> Iterator[str]:
    parents = [parent.pathspec for parent in islice(task.parents, 11)]
    yield from _fields(
        ("task", task.pathspec),
        ("status", str(task.status)),
        ("attempt", str(task.attempt)),
        ("index", shown_path(task.key.path)),
        ("item", task.item),
        ("started", local(task.created_at)),
        ("took", _took(task.seconds)),
        ("processor", _took(task.cpu_seconds)),
        ("memory", _size(task.peak_memory)),
        ("follows", " ".join([*parents[:10], *(["…"] if len(parents) > 10 else [])])),  # noqa: PLR2004 - enough for a line
        ("cloned from", task.origin_pathspec or ""),
    )
    rows = [(artifact.id, artifact.type_name, f"{artifact.size:,}") for artifact in task]
    if rows:
        yield ""
        yield from table(("ARTIFACT", "TYPE", "BYTES"), rows)
    yield from _failure_lines(task.exception)
    yield from _failure_lines(task.caught, "caught")


def _failure_lines(failure: Failure | None, how: str = "", item: str = "") -> Iterator[str]:
    if failure is None:
        return
    yield ""
    text = failure.traceback or f"{failure.exception_type}: {failure.message}"
    where = f"step {failure.step}, task {failure.task_id}, " if failure.task_id else ""
    how = how or ("stopped" if failure.exception_type == STOPPED else "failed")
    which = f", item {visible_line(item)}" if item else ""
    yield f"{how}: {where}attempt {failure.attempt}{which}"
    yield from (f"  {visible_line(line)}" for line in text.rstrip("\n").split("\n"))


# --- logs, values, events ---------------------------------------------------------------------


def log_of(found: Run | Step, streams: set[str], *, terminal: bool = False) -> Iterator[str]:
    """The log of a run or of one step as the terminal showed it; or the lines of one stream."""
    step = found.id if isinstance(found, Step) else None
    run = found.parent if isinstance(found, Step) else found
    if streams:
        yield from log_lines(run.events(), step, streams, terminal=terminal)
        return
    renderer = LogRenderer(terminal=terminal)
    journal = run._record.journal  # noqa: SLF001 - parts of one package
    records = journal.fields()
    if step is not None:
        records = (each for each in records if each[0] in OF_TASKS and step_of(each) == step)
    damage: JournalError | None = None
    while damage is None:
        some: list[Sequence[Any]] = []
        try:
            some.extend(islice(records, _RECORDS_AT_ONCE))
        except JournalError as error:  # what lies before it can be shown
            damage = error
        if some:
            yield renderer.of_records(some, journal.flow, journal.run_id)
        elif damage is None:
            return
    raise damage


def log_lines(
    events: Iterable[Event], step: str | None, streams: set[str], *, terminal: bool = False
) -> Iterator[str]:
    """The same from a run's events; of all its steps, or of one."""
    renderer = LogRenderer(terminal=terminal)
    for event in events:
        if step is not None and not (isinstance(event, TaskEvent) and event.step == step):
            continue
        text = _of_streams(renderer, event, streams) if streams else renderer.render([event])
        if text:
            yield text


def _of_streams(renderer: LogRenderer, event: Event, streams: set[str]) -> str:
    match event:
        case TaskLogged() if event.stream in streams:
            return renderer.render([event])
        case TaskSucceeded() | TaskFailed():
            return renderer.unfinished(event)
        case _:
            return ""


# --- words ------------------------------------------------------------------------------------


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Rows with a heading, in aligned columns."""
    cells = [[visible_line(cell) for cell in row] for row in (head, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    for row in cells:
        padded = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield "  ".join(padded).rstrip()


def _fields(*fields: tuple[str, str]) -> Iterator[str]:
    for name, value in fields:
        if value:
            yield f"{name:<12}{visible_line(value)}"


def local(time: datetime | None) -> str:
    """A time in the local time zone, to the second."""
    return time.astimezone().strftime("%Y-%m-%d %H:%M:%S") if time else ""


def _size(size: int | None) -> str:
    return "" if size is None else how_large(size)


def _took(seconds: float | None) -> str:
    return "" if seconds is None else how_long(seconds)
