"""The files of one run: its journal, and the summary and table of its tasks.

Nothing here loads a value or prints.
"""

from __future__ import annotations

import time
from functools import cached_property
from typing import TYPE_CHECKING, Final

from asyncflow.client.run_journal import EndOfRun, RunJournal
from asyncflow.client.run_tasks import PAUSE_SECONDS, RunTasks, own_task
from asyncflow.errors import JournalError
from asyncflow.events.manifests import unpack_ref
from asyncflow.store.run_index import SUMMARY
from asyncflow.store.run_tags import change_tags, changed_tags
from asyncflow.values import Status

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from asyncflow.client.lineage import Lineage
    from asyncflow.events.types import RunStarted
    from asyncflow.store.artifacts import ArtifactReader
    from asyncflow.store.interface import RunStore
    from asyncflow.store.run_index import Summary
    from asyncflow.values import ArtifactRef

RUNTIME: Final = "dev"
"""Where runs run: Metaflow's name for a program that somebody has started by hand."""
_SYSTEM_TAGS: Final = (
    "user:",
    "runtime:",
    "python_version:",
    "asyncflow_version:",
    "project:",
    "project_branch:",
)
"""How each tag of `RunRecord.system_tags` begins."""

_BEHIND_SECONDS: Final = 0.5  # an engine with much else to do may be that late


class FlowPlace:
    """One flow's part of a store."""

    def __init__(self, store: RunStore, flow: str) -> None:
        self.store, self.flow = store, flow

    @cached_property
    def artifacts(self) -> ArtifactReader:
        """Reads the flow's values."""
        from asyncflow.store.artifacts import ArtifactReader

        return ArtifactReader(self.store.value_source(self.flow))


class RunRecord:
    """One run, according to its files.

    Threads may share one. Any method may raise `JournalError`: a file is damaged.
    """

    def __init__(self, place: FlowPlace, run_id: str, *, removed: bool = False) -> None:
        """Touch no file; a `removed` run has only the files that other runs need."""
        self.place, self.run_id = place, run_id
        self.stored: Final = place.store.run(place.flow, run_id, removed=removed)
        self.journal: Final = RunJournal(self.stored)
        self.tasks: Final = RunTasks(self.journal)

    @property
    def pathspec(self) -> str:
        """`Flow/run`."""
        return self.journal.pathspec

    def __repr__(self) -> str:
        return f"<RunRecord {self.pathspec}>"

    def exists(self) -> bool:
        """Whether the run has begun: its first event is on disk, even if it is damaged by now."""
        try:
            return self.stored.has_file(SUMMARY) or self.journal.has_begun()
        except (JournalError, OSError):
            return True  # a closer look reports the damage

    def summary(self) -> Summary:
        """The run as it is now; its status is RUNNING while it has no last event."""
        return self.tasks.summary()

    def written_summary(self) -> Summary | None:
        """The summary of a run that has ended, if it can be had without reading the journal."""
        try:
            return self.journal.summary.read()
        except JournalError:
            return None

    def status(self) -> Status:
        """The run's status now."""
        status = self.summary().status
        if status is not Status.RUNNING or self.stored.is_being_written():
            return status
        # The engine is gone. It may have written its last event since the journal was read.
        status = self.summary().status
        return Status.INTERRUPTED if status is Status.RUNNING else status

    def is_live(self) -> bool:
        """Whether the run goes on, as far as that can be known: False for a damaged one."""
        try:
            return self.status() is Status.RUNNING
        except (JournalError, OSError):
            return False

    @property
    def started(self) -> RunStarted:
        """The run's first event."""
        return self.journal.started

    def parameters(self) -> Mapping[str, ArtifactRef]:
        """The refs of the values of the run's parameters."""
        artifacts = self.started.artifacts
        return {name: artifacts[name] for name in self.started.parameters if name in artifacts}

    def code_ref(self) -> ArtifactRef | None:
        """The ref of the run's source files; None if they were not kept."""
        packed = self.started.code_ref
        return unpack_ref(packed) if packed else None

    def environment(self) -> dict[str, str]:
        """Who started the run, and with what, by the names that Metaflow gives these facts."""
        started = self.started
        return {
            "user": started.user,
            "runtime": RUNTIME,
            "python_version": started.versions.get("python", ""),
            "asyncflow_version": started.versions.get("asyncflow", ""),
        }

    # --- tags ---

    def user_tags(self) -> frozenset[str]:
        """The run's own tags, as they are now."""
        changed = changed_tags(self.stored)
        return frozenset(self.summary().tags if changed is None else changed)

    def system_tags(self) -> frozenset[str]:
        """The tags that say who started the run, with what, and where; from its first event."""
        told = self.environment()
        project = self.started.project
        if project:
            told["project"] = project.get("name", "")
            told["project_branch"] = project.get("branch_name", "")
        return frozenset(f"{name}:{value}" for name, value in told.items() if value)

    def has_tags(self, wanted: Collection[str]) -> bool:
        """Whether it has all of these tags; the journal is read only if one may be of the system.

        A tag of a user may begin like one of the system.
        """
        missing = set(wanted)
        if missing:
            missing -= self.user_tags()
        if not all(tag.startswith(_SYSTEM_TAGS) for tag in missing):
            return False
        return not missing or missing <= self.system_tags()

    def change_tags(self, add: frozenset[str], remove: frozenset[str]) -> None:
        """Remove some of the run's own tags, then add others; what it has already stays.

        Raises:
            StoreError: They cannot be written.
        """
        add = add - self.system_tags()
        change_tags(self.stored, self.summary().tags, lambda tags: tags - remove | add)

    def ended(self) -> EndOfRun | None:
        """The run's last event; None while there is none."""
        summary = self.summary()
        if summary.status is Status.RUNNING:
            return None
        event = self.journal.event(summary.last)
        if not isinstance(event, EndOfRun):
            self.journal.refuse(f"its last event is a {type(event).__name__}")
        return event

    @cached_property
    def lineage(self) -> Lineage:
        """Which of the run's tasks follow which."""
        from asyncflow.client.lineage import Lineage

        return Lineage(self.tasks)

    def appears(self, is_there: Callable[[], bool]) -> bool:
        """Whether something exists, or does within half a second; only a task of this run waits.

        A task's siblings may have begun before their events are in the journal.
        """
        until = time.monotonic() + _BEHIND_SECONDS
        while not is_there():
            if own_task(self.place.flow, self.run_id) is None or time.monotonic() > until:
                return False
            time.sleep(PAUSE_SECONDS)
        return True
