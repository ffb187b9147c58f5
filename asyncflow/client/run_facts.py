"""Facts about a run alone, without its flow, its steps and its tasks."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, overload

from asyncflow.client.artifact_values import Data
from asyncflow.client.event_stream import EventStream, Follower
from asyncflow.client.resumptions import Resumptions
from asyncflow.client.views import RunView
from asyncflow.client.words import how_long, how_many
from asyncflow.errors import TagError
from asyncflow.events.selection import EventFilter, Wish
from asyncflow.events.types import RunFailed, from_microseconds
from asyncflow.store.run_tags import wrong_with_tag
from asyncflow.values import Status

if TYPE_CHECKING:
    from asyncflow.client.code import RunCode
    from asyncflow.client.run_files import RunRecord
    from asyncflow.events.types import Event
    from asyncflow.flow.graph import Graph
    from asyncflow.values import Failure


def _tags_in(given: object) -> frozenset[str]:
    """One tag or several as a set.

    Raises:
        TagError: One cannot be a tag.
    """
    tags: Iterable[Any] = (
        given if isinstance(given, Iterable) and not isinstance(given, str) else [given]
    )
    tags = list(tags)
    for tag in tags:
        if wrong := wrong_with_tag(tag):
            message = f"the tag {reprlib.repr(tag)} {wrong}: give a text of one line"
            raise TagError(message)
    return frozenset(tags)


class RunFacts(RunView):
    """A run's status, how it was started, and its events."""

    __slots__ = ("_record",)
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

    def caught(self) -> dict[str, int]:
        """The steps whose `@catch` let the run go on, each with the number of its failed tasks.

        Failures caught in a run that this one resumed count there. Reads the run's journal.
        """
        return dict(self._record.journal.caught())

    # --- tags ---

    def add_tag(self, tag: str | Iterable[str]) -> None:
        """Give it a tag, or several; one that it has already stays.

        Tags may be changed at any time, also while the run goes on, and by several processes at
        once: every change counts. When this returns, the tags survive a power cut. So it waits for
        the disk: in a coroutine, call it in a thread. A task sees the tags of the run's start in
        `current.tags`.

        Raises:
            TagError: A tag is not a line of text with at most 500 characters.
            StoreError: The store cannot be written to.
        """
        self.replace_tags((), tag)

    def add_tags(self, tags: str | Iterable[str]) -> None:
        """Give it several tags at once, as `add_tag`."""
        self.replace_tags((), tags)

    def remove_tag(self, tag: str | Iterable[str]) -> None:
        """Take a tag away, or several; one that it does not have is no error.

        Raises:
            TagError: It is one of `system_tags`, which stay.
            StoreError: The store cannot be written to.
        """
        self.replace_tags(tag, ())

    def remove_tags(self, tags: str | Iterable[str]) -> None:
        """Take several tags away at once, as `remove_tag`."""
        self.replace_tags(tags, ())

    def replace_tag(
        self, tag_to_remove: str | Iterable[str], tag_to_add: str | Iterable[str]
    ) -> None:
        """Take one tag away and give it another, in one change."""
        self.replace_tags(tag_to_remove, tag_to_add)

    def replace_tags(
        self, tags_to_remove: str | Iterable[str], tags_to_add: str | Iterable[str]
    ) -> None:
        """Take tags away, then give others, in one change: a tag in both stays.

        Raises:
            TagError: One cannot be a tag, or one of `system_tags` is to be removed.
            StoreError: The store cannot be written to.
        """
        add, remove = _tags_in(tags_to_add), _tags_in(tags_to_remove)
        fixed = sorted(remove & self.system_tags)
        if fixed:
            message = f"the tag {fixed[0]!r} of {self.pathspec} cannot be removed: it says a fact"
            raise TagError(message)
        self._record.change_tags(add, remove)

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
