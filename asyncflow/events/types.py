"""What happened in a run: frozen facts in the past tense.

A live subscription delivers these events, the journal stores them, a resume replays them, and the
client reads them back. `asyncflow.events.records` describes their records in a journal. Fields are
only ever added at the end, with a default, so that an old journal stays readable; a reader ignores
fields that it does not know. docs/reference/events.md lists them byte by byte.

No I/O here, and no knowledge of how events are stored, sent or shown.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field, fields
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Final

from asyncflow._quick_classes import dataclass
from asyncflow.errors import RecordError, TaskCancelledError
from asyncflow.events.manifests import is_whole, pack_manifest, unpack_manifest
from asyncflow.values import Failure, Manifest, TaskKey

if TYPE_CHECKING:
    from collections.abc import Mapping

SCHEMA_VERSION: Final = 8
"""Goes up by one whenever an event or a field is added; what exists already never changes."""

STOPPED: Final = f"{TaskCancelledError.__module__}.{TaskCancelledError.__qualname__}"
"""The exception type of an attempt that was stopped because its run was ending."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One thing that happened in a run."""

    code: ClassVar[int] = 0

    flow: str
    run_id: str
    seq: int
    """1, 2, 3… in its run, without gaps."""
    time: datetime
    """When it happened, UTC."""

    @property
    def pathspec(self) -> str:
        """`Flow/run` or `Flow/run/step/task`."""
        return f"{self.flow}/{self.run_id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskEvent(Event):
    """One thing that happened to one attempt of one task."""

    step: str
    task_id: str
    """1, 2, 3… in its run, as text."""
    attempt: int
    """0 for the first."""

    @property
    def pathspec(self) -> str:
        """`Flow/run/step/task`."""
        return f"{self.flow}/{self.run_id}/{self.step}/{self.task_id}"


Resolve = Callable[[bytes], Manifest]
"""Reads what a manifest does not say by itself from the journal of its run."""


class ArtifactsEvent(TaskEvent):
    """An event that names artifacts of its task.

    Its record may say only what differs from an earlier record of the same journal. The rest is
    read from there when it is asked for.
    """

    __slots__ = ("_resolve",)

    manifest: bytes

    @property
    def artifacts(self) -> Manifest:
        """Artifacts by name; the subclasses say which.

        Raises:
            JournalError: A record that says them is damaged; the error names the task or the run.
        """
        return self._all_artifacts()

    def _all_artifacts(self) -> Manifest:
        resolve: Resolve | None = getattr(self, "_resolve", None)
        try:
            if resolve is None or is_whole(self.manifest):
                return unpack_manifest(self.manifest)
            return resolve(self.manifest)
        except RecordError as error:
            message = f"the artifacts of {self.pathspec} cannot be read: {error}"
            raise RecordError(message) from error

    def __reduce__(self) -> Any:  # a copy of the event has no journal, so it says everything
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        if not is_whole(self.manifest):
            values["manifest"] = pack_manifest(self._all_artifacts())
        return _made, (type(self), values)


def _made(cls: type[Event], values: dict[str, Any]) -> Event:
    return cls(**values)


def let_resolve(event: Event, resolve: Resolve | None) -> Event:
    """Let an event read from its journal what its record does not say; return it."""
    if resolve is not None and isinstance(event, ArtifactsEvent):
        set_resolve(event, resolve)
    return event


set_resolve = vars(ArtifactsEvent)["_resolve"].__set__  # the event is frozen for others
"""The same for an event that names artifacts, given something that reads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted(Event):
    """A run exists: its journal is on disk, and none of its tasks has run yet."""

    code: ClassVar[int] = 1

    graph: Mapping[str, Any]
    """The graph as plain data; see `asyncflow.flow.graph.Graph.from_data`."""
    parameters: Mapping[str, str] = field(default_factory=dict)
    """The parameters' values as text, for people; the values themselves are artifacts."""
    tags: tuple[str, ...] = ()
    manifest: bytes = b"\x80"
    """Packed `artifacts`: the parameters and the class-level constants."""
    origin_run_id: str | None = None
    """The run that this one resumes."""
    source: Mapping[str, Any] = field(default_factory=dict)
    """Where the flow class comes from, so that a worker or a resume can load it again."""
    user: str = ""
    pid: int = 0
    """The engine's process."""
    host: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    """The versions of Python, of asyncflow, and of the events (`SCHEMA_VERSION`)."""
    origin_step: str | None = None
    """The step of the origin from which on nothing was taken over; None if no step was named."""

    code_ref: bytes = b""
    """The packed ref of the flow's source files, see `Run.code`; empty for none."""
    key: str = ""
    """The key that names the run, see `Engine.options`; empty for none."""
    trace: Mapping[str, str] = field(default_factory=dict)
    """Where spans of the run's tasks belong, see `asyncflow.otel`; empty if the run is not
    traced."""
    signature: Mapping[str, Any] = field(default_factory=dict)
    """What the flow says of itself: its `doc`, and by name its `parameters`, each with `type`,
    `default`, `required`, `help`, `multiple` and `separator`. Empty in runs of earlier versions."""

    @property
    def artifacts(self) -> Manifest:
        """The parameters and class-level constants, by name."""
        return unpack_manifest(self.manifest)

    @property
    def project(self) -> Mapping[str, Any]:
        """Where the run is in the project of its flow's `@project`; empty if it has none."""
        options = self.graph.get("options")  # a damaged record may have anything there
        project = options.get("project") if isinstance(options, dict) else None
        return project if isinstance(project, dict) else {}


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskStarted(TaskEvent):
    """A worker began an attempt of a task."""

    code: ClassVar[int] = 2

    path: tuple[int, ...] = ()
    """Which foreach sibling on each level, outermost first; see `TaskKey.path`."""
    pid: int = 0
    """The worker's process."""
    parents: tuple[int, ...] = ()
    """In a flow with conditions: the ids of the tasks that this one follows, unless it joins a
    foreach. In other flows the graph and the path say it."""
    node: str = ""
    """On a cluster: the name of the worker's node."""
    item: str = ""
    """Within a foreach: the task's item of the innermost one, as a text of at most
    `values.MOST_ITEM_CHARACTERS`. Empty outside of any, and in runs of earlier versions."""

    @property
    def key(self) -> TaskKey:
        """Names the task within the graph, the same in every run."""
        return TaskKey(self.step, self.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskLogged(TaskEvent):
    r"""A task printed a line, or a piece of one.

    `line` comes without its line end. `end` is that line end, or empty for a piece that continues
    in the task's next event of the same stream: a prompt, a progress bar, a line of megabytes.
    Bytes that are not UTF-8 show as `\xNN`.
    """

    code: ClassVar[int] = 3

    stream: str
    """`stdout` or `stderr`."""
    line: str
    end: str = "\n"
    pid: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSucceeded(ArtifactsEvent):
    """A task is finished for good, and its artifacts can be read."""

    code: ClassVar[int] = 4

    path: tuple[int, ...] = ()
    manifest: bytes = b"\x80"
    """Packed `artifacts`: kept packed, because the engine passes them on unread. It may say only
    what differs from an earlier event, see docs/reference/events.md."""
    seconds: float = 0.0
    """How long the attempt took, from the step's first line to its last."""
    pid: int = 0
    fanout: int | None = None
    """After `self.next(..., foreach=...)`: how many tasks follow; else None."""
    items: bytes = b""
    """After a foreach: the packed ref of the stored items."""
    log: int = 0
    """The journal offset of the attempt's last output; 0 if it printed nothing."""
    failed: int = 0
    """The journal offset of the failure that `@catch` caught; 0 for none."""
    choice: str = ""
    """After a condition: the step that it has chosen; else empty."""
    cpu_seconds: float | None = None
    """Processor time of the attempt; see `TaskFailed.cpu_seconds`."""
    peak_memory: int | None = None
    """The most memory that its worker had in use, in bytes; see `TaskFailed.peak_memory`."""
    cards: bytes = b""
    """What it has put on its cards, packed as a manifest; empty for nothing."""

    @property
    def artifacts(self) -> Manifest:
        """The task's artifacts by name."""
        return self._all_artifacts()

    @property
    def key(self) -> TaskKey:
        """Names the task within the graph, the same in every run."""
        return TaskKey(self.step, self.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFailed(ArtifactsEvent):
    """An attempt of a task failed."""

    code: ClassVar[int] = 5

    path: tuple[int, ...] = ()
    exception_type: str = ""
    message: str = ""
    traceback: str = ""
    """The traceback's text, cut to the user's own frames."""
    will_retry: bool = False
    seconds: float = 0.0
    pid: int = 0
    log: int = 0
    """The journal offset of the attempt's last output; 0 if it printed nothing."""
    caught: bool = False
    """Whether the step's `@catch` lets the run go on: the attempt's `TaskSucceeded` follows.

    In journals of earlier versions, that event has a further attempt number, which ran nothing.
    """
    manifest: bytes = b"\x80"
    """Packed `artifacts`."""
    cpu_seconds: float | None = None
    """Processor time of the attempt: of all threads of its worker's process, and of the processes
    that the step has started and waited for. None if the worker died, and for an async step that
    has shared its event loop with others."""
    peak_memory: int | None = None
    """The most physical memory, in bytes, that the worker's process had in use at a time during
    the attempt. It includes Python, the imported modules and what the worker shares between tasks.
    For a very short task it may be that of one just before. None as for `cpu_seconds`, and where
    the system cannot tell."""
    item: str = ""
    """As `TaskStarted.item`."""
    cards: bytes = b""
    """What it had put on its cards by then, packed as a manifest; empty for nothing."""

    @property
    def artifacts(self) -> Manifest:
        """What the step had set or inherited when it failed for good, by name.

        Nothing takes it over: it is there to be looked at. Empty if another attempt follows, if the
        failure is caught, or if the worker could not keep it.
        """
        return self._all_artifacts()

    @property
    def was_stopped(self) -> bool:
        """Whether the attempt was stopped because its run was ending; else it failed by itself."""
        return self.exception_type == STOPPED

    @property
    def failure(self) -> Failure:
        """The failure as a value that outlives the event."""
        return Failure(
            self.step,
            self.task_id,
            self.attempt,
            self.exception_type,
            self.message,
            self.traceback,
        )

    @property
    def key(self) -> TaskKey:
        """Names the task within the graph, the same in every run."""
        return TaskKey(self.step, self.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRetried(TaskEvent):
    """Another attempt of a failed task was ordered; `attempt` is the new one."""

    code: ClassVar[int] = 6

    path: tuple[int, ...] = ()
    after_seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskCloned(ArtifactsEvent):
    """A finished task of the origin run was taken over as it is; no data was copied."""

    code: ClassVar[int] = 7

    path: tuple[int, ...] = ()
    manifest: bytes = b"\x80"
    fanout: int | None = None
    items: bytes = b""
    origin_run_id: str = ""
    origin_task_id: str = ""
    choice: str = ""
    parents: tuple[int, ...] = ()
    item: str = ""
    """As `TaskStarted.item`."""
    cards: bytes = b""

    @property
    def artifacts(self) -> Manifest:
        """The task's artifacts by name."""
        return self._all_artifacts()

    @property
    def key(self) -> TaskKey:
        """Names the task within the graph, the same in every run."""
        return TaskKey(self.step, self.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskYielded(ArtifactsEvent):
    """A task whose foreach runs over a generator has stored more items: tasks for them can begin.

    Whatever the attempt, items have the indexes in which they were yielded. An item that an earlier
    attempt has announced stands.
    """

    code: ClassVar[int] = 11

    path: tuple[int, ...] = ()
    manifest: bytes = b"\x80"
    """In the attempt's first such event: the packed `artifacts` that the tasks for the items
    inherit."""
    index: int = 0
    """The index of the first of these items."""
    count: int = 0
    """How many items these are."""
    items: bytes = b""
    """The packed ref of these items, stored like those of any foreach."""
    digests: bytes = b""
    """8 bytes for each of these items, the same for an item that is stored as the same bytes; empty
    in runs of earlier versions."""

    @property
    def artifacts(self) -> Manifest:
        """The artifacts that the tasks for the items inherit, by name."""
        return self._all_artifacts()

    @property
    def key(self) -> TaskKey:
        """Names the task within the graph, the same in every run."""
        return TaskKey(self.step, self.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class CardUpdated(TaskEvent):
    """A running task has put something on one of its cards, and it is to be seen now.

    It has all cards of the attempt, so the last of these events says it all. What is on the cards
    when the attempt ends is in the event of that end.
    """

    code: ClassVar[int] = 12

    path: tuple[int, ...] = ()
    cards: bytes = b""
    """What is on the cards, packed as a manifest: `0` is the first card of the step, and so on; the
    other names are those of images."""
    pid: int = 0

    @property
    def key(self) -> TaskKey:
        """Names the task within the graph, the same in every run."""
        return TaskKey(self.step, self.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSucceeded(Event):
    """Every step of the run is done."""

    code: ClassVar[int] = 8

    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFailed(Event):
    """The run ended before its last step; `failure` is the task that failed first."""

    code: ClassVar[int] = 9

    step: str = ""
    task_id: str = ""
    attempt: int = 0
    exception_type: str = ""
    message: str = ""
    traceback: str = ""
    seconds: float = 0.0
    item: str = ""
    """`TaskStarted.item` of the task that failed first."""

    @property
    def failure(self) -> Failure:
        """What is known of the failure that ended the run."""
        return Failure(
            self.step,
            self.task_id,
            self.attempt,
            self.exception_type,
            self.message,
            self.traceback,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RunCancelled(Event):
    """The run was told to stop; its finished tasks are kept."""

    code: ClassVar[int] = 10

    reason: str = ""
    seconds: float = 0.0
    by_shutdown: bool = False
    """Whether it had to stop because its engine was closed, or its program was asked to end by
    SIGTERM or SIGHUP; else somebody wanted this run to stop."""


ENDINGS: Final = (RunSucceeded, RunFailed, RunCancelled)
"""The last event of a run is one of these."""

_TYPES: Final[tuple[type[Event], ...]] = (
    RunStarted,
    TaskStarted,
    TaskLogged,
    TaskSucceeded,
    TaskFailed,
    TaskRetried,
    TaskCloned,
    RunSucceeded,
    RunFailed,
    RunCancelled,
    TaskYielded,
    CardUpdated,
)


def event_types() -> tuple[type[Event], ...]:
    """Every type of event, in the order of their codes."""
    return _TYPES


# --- time -------------------------------------------------------------------------------------


def to_microseconds(time: datetime) -> int:
    """Microseconds since 1970, exactly."""
    return (time - _EPOCH) // _MICROSECOND


@lru_cache(maxsize=16)  # an engine gives all events of a batch the same time
def from_microseconds(microseconds: int) -> datetime:
    """The UTC time of so many microseconds since 1970."""
    return _EPOCH + timedelta(microseconds=microseconds)
