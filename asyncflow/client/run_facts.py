"""Facts about a run alone, without its flow, its steps and its tasks."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, overload

from asyncflow.client.artifact_values import Data
from asyncflow.client.event_stream import EventStream, Follower
from asyncflow.client.resumptions import Resumptions
from asyncflow.client.views import RunView
from asyncflow.client.words import how_long, how_many, local_time
from asyncflow.events.selection import EventFilter, Wish
from asyncflow.events.types import RunFailed, from_microseconds
from asyncflow.values import Status

if TYPE_CHECKING:
    from asyncflow.client.code import RunCode
    from asyncflow.client.run_files import RunRecord
    from asyncflow.events.types import Event
    from asyncflow.flow.graph import Graph
    from asyncflow.values import Failure


class RunFacts(RunView):
    """A run's status, how it was started, and its events."""

    __slots__ = ("_record",)
    _COLUMNS = ("step", "tasks", "began")
    _record: RunRecord

    @property
    def path_components(self) -> tuple[str, ...]:
        """The parts of the pathspec."""
        record = self._record
        return record.place.flow, record.run_id

    @property
    def status(self) -> Status:
        """The status now; `INTERRUPTED` if its engine is gone and the run has no last event."""
        return self._record.status()

    @property
    def successful(self) -> bool:
        """Whether it has succeeded."""
        return self._record.summary().status is Status.SUCCEEDED

    @property
    def finished(self) -> bool:
        """Whether it has ended in any way; an interrupted run has not."""
        return self._record.summary().status.finished

    @property
    def created_at(self) -> datetime:
        """When it was started, UTC."""
        return from_microseconds(self._record.summary().started)

    @property
    def finished_at(self) -> datetime | None:
        """When it ended, UTC; None while it has not."""
        summary = self._record.summary()
        return from_microseconds(summary.finished) if summary.status.finished else None

    @property
    def seconds(self) -> float | None:
        """The time from its start to its end, in seconds; None while it has not ended."""
        summary = self._record.summary()
        if not summary.status.finished:
            return None
        # An earlier version took both from the wall clock, which may have been set back meanwhile.
        return max(summary.finished - summary.started, 0) / 1e6

    @property
    def failure(self) -> Failure | None:
        """The first failure, if the run has failed."""
        ended = self._record.ended()
        return ended.failure if isinstance(ended, RunFailed) else None

    @property
    def failed_item(self) -> str:
        """The item of the task that failed first, as `Task.item`; empty if there is none."""
        ended = self._record.ended()
        return ended.item if isinstance(ended, RunFailed) else ""

    def caught(self) -> dict[str, int]:
        """The steps whose `@catch` let the run go on, each with the number of its failed tasks.

        Failures caught in a run that this one resumed count there. Reads the run's journal.
        """
        return dict(self._record.journal.caught())

    # --- how it was started ---

    @property
    def trigger(self) -> None:
        """None: nothing but people and programs starts runs here."""
        return

    @property
    def code(self) -> RunCode | None:
        """The flow's source files as they were when the run started; None if none were kept.

        Raises:
            ArtifactError: They are damaged, or gone.
        """
        from asyncflow.client.code import code_of

        return code_of(self._record)

    @property
    def parameters(self) -> Data:
        """The values of the flow's parameters, each loaded on access."""
        return Data(self._place, f"{self.pathspec}/parameters", self._record.parameters)

    @property
    def origin_run_id(self) -> str | None:
        """The run that this one resumed; None if it resumed none."""
        return self._record.started.origin_run_id

    @property
    def origin_pathspec(self) -> str | None:
        """`Flow/run` of the run that this one resumed; None if it resumed none."""
        origin = self.origin_run_id
        return None if origin is None else f"{self._place.flow}/{origin}"

    @property
    def resumed_as(self) -> tuple[str, ...]:
        """The ids of the runs that have resumed this one, oldest first.

        Reads the first event of each younger run of the flow.
        """
        return tuple(Resumptions(self._place).of(self.id))

    @property
    def user(self) -> str:
        """Who started it."""
        return self._record.started.user

    @property
    def graph(self) -> Graph:
        """The graph of the run's flow."""
        return self._record.journal.graph

    @property
    def task_count(self) -> int:
        """How many tasks have begun."""
        return sum(self._record.tasks.steps().values())

    @overload
    def events(self, *, since: int = 0, follow: bool = False) -> EventStream[Event]: ...
    @overload
    def events(
        self, *types: type[Wish], since: int = 0, follow: bool = False
    ) -> EventStream[Wish]: ...
    def events(self, *types: type[Event], since: int = 0, follow: bool = False) -> EventStream[Any]:
        """Its events, or those of some types, for `for` and for `async for`.

        They start with the first event, or with the first whose `seq` is higher than `since`. They
        end with the last event that is there now; with `follow`, they wait for the run's last
        event.

        Raises:
            RunInterruptedError: When following: the run's engine is gone without recording an end.
        """
        return EventStream(self.follower(EventFilter(types, since), follow=follow))

    def follower(self, event_filter: EventFilter[Wish], *, follow: bool = True) -> Follower[Wish]:
        """The reader behind `events`, for code that waits in its own way."""
        record = self._record
        return Follower(record.stored, event_filter, record.journal.check_whole, follow=follow)

    def _cells(self) -> tuple[str, ...]:
        took = "" if self.seconds is None else how_long(self.seconds)
        tags = ", ".join(sorted(self.user_tags))
        return self.id, str(self.status), local_time(self.created_at), took, tags

    def _describe(self) -> str:
        status, seconds = self.status, self.seconds
        said = f"{status}, {how_many(self.task_count, 'task')}"
        if seconds is not None:
            return f"{said}, {how_long(seconds)}"
        if status is Status.RUNNING:
            # a clock was set back
            age = max((datetime.now(UTC) - self.created_at).total_seconds(), 0)
            return f"{said}, {how_long(age)} so far"
        return said
