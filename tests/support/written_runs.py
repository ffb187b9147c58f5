"""Writes runs as the engine does, without an engine: for tests and benchmarks of the client."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from asyncflow.events import (
    RunCancelled,
    RunFailed,
    RunStarted,
    RunSucceeded,
    TaskCloned,
    TaskFailed,
    TaskRetried,
    TaskStarted,
    TaskSucceeded,
)
from asyncflow.events.manifests import pack_manifest
from asyncflow.events.output_lines import count_pieces
from asyncflow.events.packing import pack_event
from asyncflow.events.types import from_microseconds, to_microseconds
from asyncflow.store.frames import frame
from asyncflow.store.journal import HEADER
from asyncflow.store.layout import Layout
from asyncflow.store.local_store import LocalRun
from asyncflow.store.run_index import Summary, write_summary
from asyncflow.store.task_table import INDEX, TaskEntry, TaskState, TaskTable
from asyncflow.values import Status
from tests.support.output_records import pack_logged
from tests.support.store_files import begin_journal, writer_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from asyncflow.events import Event
    from asyncflow.flow.graph import Graph
    from asyncflow.values import ArtifactRef

STARTED_AT = datetime(2026, 11, 23, 22, 24, 42, 987_000, tzinfo=UTC)
_BATCH_BYTES = 1 << 20

Artifacts = "Mapping[str, ArtifactRef]"


def write_end(run: LocalRun, summary: Summary, table: TaskTable) -> None:
    """Write the table of a run, and then its summary."""
    index = table.dump()
    run.put_files({INDEX: index}, lambda: None)
    write_summary(run, summary, index)


@dataclass
class OpenTask:
    """A task between its events."""

    step: str
    path: tuple[int, ...]
    attempt: int = 0
    started: int = 0
    log: int = 0
    failed: int = 0


@dataclass
class RunWriter:
    """One run on its way into a store.

    Time stands still but for `tick`; each event is a second after the one before it.
    """

    store: Path
    flow: str
    run_id: str
    graph: Graph
    tags: tuple[str, ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)
    constants: Mapping[str, Any] = field(default_factory=dict)
    origin: str | None = None
    began: datetime = STARTED_AT

    def __post_init__(self) -> None:
        layout = Layout.open(self.store, create=True)
        self.run_dir = layout.run_dir(self.flow, self.run_id)
        self.run_dir.mkdir(parents=True)
        self.values = writer_of(layout, self.flow, self.run_id, "w1")
        self.journal = begin_journal(self.run_dir / "journal")
        self.table = TaskTable()
        self.steps = {name: number for number, name in enumerate(self.graph.nodes)}
        self.time = to_microseconds(self.began) - 1_000_000
        self.seq = 0
        self.end_task = 0
        self.open: dict[int, OpenTask] = {}
        self.base = self.put({**self.parameters, **self.constants})
        self._waiting: list[bytes] = []
        self._at = len(HEADER)
        self.event(
            RunStarted,
            graph=self.graph.to_data(),
            parameters={name: str(value) for name, value in self.parameters.items()},
            tags=self.tags,
            manifest=pack_manifest(self.base),
            origin_run_id=self.origin,
            user="somebody",
        )

    # --- values ---

    def put(self, values: Mapping[str, Any]) -> dict[str, ArtifactRef]:
        """Store values; their refs by name."""
        return {name: self.values.put(value, name=name) for name, value in values.items()}

    # --- events ---

    def event(self, cls: type[Event], **named: Any) -> int:
        """Journal any event; where it lies."""
        self.tick()
        self.seq += 1
        event = cls(
            flow=self.flow,
            run_id=self.run_id,
            seq=self.seq,
            time=from_microseconds(self.time),
            **named,
        )
        return self.append(pack_event(event))

    def append(self, record: bytes) -> int:
        """Journal a record as it is; where it lies."""
        framed, at = frame(record), self._at
        self._waiting.append(framed)
        self._at += len(framed)
        return at

    def tick(self, seconds: float = 1.0) -> None:
        """Let time pass."""
        self.time += int(seconds * 1e6)

    def flush(self) -> None:
        """Put on disk what was journalled."""
        self.journal.write(b"".join(self._waiting))
        self._waiting.clear()

    def start(self, step: str, path: Sequence[int] = (), task: int = 0) -> int:
        """Begin a task, or another attempt of one; its id."""
        if not task:
            task = len(self.table) + 1
            self.open[task] = OpenTask(step, tuple(path))
        opened = self.open[task]
        identity = self._identity(task)
        opened.started, opened.log = self.event(TaskStarted, **identity, pid=4), 0
        self._note(task, 0, TaskState.STARTED)
        return task

    def log(self, task: int, data: bytes, stream: int = 0) -> int:
        """Have a task print; where the record lies."""
        opened = self.open[task]
        self.tick()
        key = opened.step, task, opened.attempt
        at = self.append(pack_logged(self.seq + 1, self.time, key, stream, 4, data, opened.log))
        self.seq += count_pieces(data)
        opened.log = at
        return at

    def succeed(
        self,
        task: int,
        values: Mapping[str, Any] | None = None,
        *,
        refs: Mapping[str, ArtifactRef] | None = None,
        fanout: int | None = None,
    ) -> int:
        """Have a task succeed with these artifacts, beside parameters and constants."""
        manifest = {**self.base, **self.put(values or {}), **(refs or {})}
        at = self.event(
            TaskSucceeded,
            **self._identity(task),
            manifest=pack_manifest(manifest),
            seconds=0.5,
            fanout=fanout,
            log=self.open[task].log,
            failed=self.open[task].failed,
        )
        self._note(task, at, TaskState.SUCCEEDED)
        if self.open.pop(task).step == "end":
            self.end_task = task
        return at

    def fail(
        self, task: int, message: str = "no", *, will_retry: bool = False, caught: bool = False
    ) -> int:
        """Have a task fail; if that is caught, it goes on and is to succeed."""
        at = self.event(
            TaskFailed,
            **self._identity(task),
            exception_type="ValueError",
            message=message,
            traceback="Traceback …",
            will_retry=will_retry,
            seconds=0.25,
            log=self.open[task].log,
            caught=caught,
        )
        self._note(task, at, TaskState.FAILED)
        if caught:
            self.open[task].failed = at
            return at
        opened = self.open.pop(task)
        if will_retry:
            self.open[task] = OpenTask(opened.step, opened.path, opened.attempt + 1)
            self.event(TaskRetried, **self._identity(task))
        return at

    def clone(
        self, step: str, path: Sequence[int], origin_task: int, refs: Mapping[str, ArtifactRef]
    ) -> int:
        """Take a task over from the origin run; its id."""
        task = len(self.table) + 1
        self.open[task] = OpenTask(step, tuple(path))
        at = self.event(
            TaskCloned,
            **self._identity(task),
            manifest=pack_manifest({**self.base, **refs}),
            origin_run_id=self.origin,
            origin_task_id=str(origin_task),
        )
        self.open[task].started = at
        self._note(task, at, TaskState.CLONED)
        del self.open[task]
        return task

    def run(self, step: str, path: Sequence[int] = (), **values: Any) -> int:
        """A task that begins and succeeds; its id."""
        task = self.start(step, path)
        self.succeed(task, values)
        return task

    def _identity(self, task: int) -> dict[str, Any]:
        opened = self.open[task]
        return {
            "step": opened.step,
            "task_id": str(task),
            "attempt": opened.attempt,
            "path": opened.path,
        }

    def _note(self, task: int, ended: int, state: TaskState) -> None:
        opened = self.open[task]
        index = opened.path[-1] if opened.path else 0
        step = self.steps[opened.step]
        self.table[task] = TaskEntry(opened.started, ended, step, state, opened.attempt, index)

    # --- the end ---

    def finish(
        self, status: Status = Status.SUCCEEDED, *, summary: bool = True, **named: Any
    ) -> None:
        """Say the run's last word, and write its summary."""
        cls = {
            Status.SUCCEEDED: RunSucceeded,
            Status.FAILED: RunFailed,
            Status.CANCELLED: RunCancelled,
        }[status]
        last = self.event(cls, **named)
        self.flush()
        if summary:
            write_end(LocalRun.at(self.run_dir), self.summary(status, last), self.table)
        self.close()

    def summary(self, status: Status, last: int) -> Summary:
        """The summary of a run whose last event lies at `last`."""
        return Summary(
            status=status,
            started=to_microseconds(self.began),
            finished=self.time,
            flow=self.flow,
            run_id=self.run_id,
            first=len(HEADER),
            last=last,
            journal_bytes=self._at,
            events=self.seq,
            end_task=self.end_task,
            steps=tuple(
                (name, len(self.table.tasks_of(number))) for name, number in self.steps.items()
            ),
            tags=self.tags,
        )

    def close(self) -> None:
        """Put on disk what was journalled and let go of it, as when an engine ends."""
        self.flush()
        self.journal.close()
        self.values.close()
