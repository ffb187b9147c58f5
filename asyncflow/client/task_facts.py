"""Facts about a task alone, without its run, its step and its neighbours in the graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asyncflow.client.artifact_values import Data
from asyncflow.client.attempts import seconds_of
from asyncflow.client.foreach_items import input_of
from asyncflow.client.run_files import RUNTIME
from asyncflow.client.task_metadata import facts_of
from asyncflow.client.views import RunView
from asyncflow.client.words import how_long, local_time
from asyncflow.events.types import TaskCloned, TaskFailed
from asyncflow.values import Status, TaskKey, indexes_of

if TYPE_CHECKING:
    from datetime import datetime

    from asyncflow.client.attempts import Attempts
    from asyncflow.client.code import RunCode
    from asyncflow.client.run_files import RunRecord
    from asyncflow.values import Failure


class TaskFacts(RunView):
    """A task's status, how its last attempt went, and the values of its artifacts."""

    __slots__ = ("_attempts",)
    _COLUMNS = ("artifact", "type", "size")
    _attempts: Attempts

    @property
    def path_components(self) -> tuple[str, ...]:
        """The parts of the pathspec."""
        told = self._attempts
        record = told.record
        return record.place.flow, record.run_id, told.step, str(told.number)

    @property
    def _record(self) -> RunRecord:
        return self._attempts.record

    @property
    def status(self) -> Status:
        """The status now; a task that waits for a retry is running while its run is."""
        return self._attempts.status()

    @property
    def successful(self) -> bool:
        """Whether it has succeeded."""
        return self.status is Status.SUCCEEDED

    @property
    def finished(self) -> bool:
        """Whether it has ended in any way."""
        return self.status.finished

    @property
    def exception(self) -> Failure | None:
        """Why its last attempt failed; None if it is running or has succeeded."""
        ended = self._attempts.ended()
        return ended.failure if isinstance(ended, TaskFailed) else None

    @property
    def caught(self) -> Failure | None:
        """Its final failure, if `@catch` let the run go on; else None.

        Such a task has succeeded. It keeps what the step had set, unless its worker died, and the
        artifact that `@catch` names.
        """
        return self._attempts.caught()

    @property
    def attempt(self) -> int:
        """The number of its last attempt so far: 0 for the first."""
        return self._attempts.last_event().attempt

    @property
    def current_attempt(self) -> int:
        """The same as `attempt`: Metaflow's name for it."""
        return self.attempt

    @property
    def runtime_name(self) -> str:
        """`dev`: somebody has started the program by hand, as Metaflow calls it."""
        return RUNTIME

    @property
    def environment_info(self) -> None:
        """None: a task runs in the environment of the program that starts the run."""
        return

    @property
    def created_at(self) -> datetime:
        """When its last attempt began, UTC."""
        return self._attempts.created_at()

    @property
    def finished_at(self) -> datetime | None:
        """When its last attempt ended, UTC; None while it has not."""
        return self._attempts.finished_at()

    @property
    def seconds(self) -> float | None:
        """How long its last attempt took; None while it has not ended, 0 for a clone."""
        ended = self._attempts.ended()
        return seconds_of(ended) if ended else None

    @property
    def cpu_seconds(self) -> float | None:
        """Processor time of its last attempt, of all threads and ended child processes.

        None while it has not ended, if that is not known (its worker died, or an async step has
        shared its event loop with others), and for a clone.
        """
        return self._attempts.usage()[0]

    @property
    def peak_memory(self) -> int | None:
        """The most memory that the worker's process had in use during its last attempt, in bytes.

        That is resident memory, with Python, imported modules and shared resources. None as for
        `cpu_seconds`.
        """
        return self._attempts.usage()[1]

    @property
    def code(self) -> RunCode | None:
        """The source files of its run; see `Run.code`."""
        from asyncflow.client.code import code_of

        return code_of(self._record)

    @property
    def key(self) -> TaskKey:
        """Names the task within the graph: its step, its foreach indexes and repetitions."""
        event = self._attempts.last_event()
        return TaskKey(event.step, event.path)

    @property
    def path(self) -> tuple[int, ...]:
        """The index of its item in each foreach around it, outermost first."""
        return indexes_of(self.key.path)

    @property
    def index(self) -> int | None:
        """The index of its item in the innermost foreach; None outside of any."""
        path = self.path
        return path[-1] if path else None

    @property
    def item(self) -> str:
        """Its item of the innermost foreach as a short text, such as `'berlin'`.

        It was made when the foreach began: nothing is unpickled. Empty outside of any foreach, in a
        gang, and in runs of earlier versions.
        """
        return self._attempts.item()

    @property
    def input(self) -> Any:
        """Its item of the innermost foreach, as the step sees it; None outside of any.

        It is loaded on access, whether the task has succeeded, failed, or still runs.

        Raises:
            ArtifactError: It cannot be read, or not be unpickled here.
            NotFoundError: What it belongs to is gone from the journal.
        """
        return input_of(self._record, self._attempts.number, self.key)

    @property
    def origin_pathspec(self) -> str | None:
        """For a task taken over from the run that this one resumed: the task that did the work."""
        ended = self._attempts.ended()
        if not isinstance(ended, TaskCloned):
            return None
        origin = self._place.flow, ended.origin_run_id, self._attempts.step, ended.origin_task_id
        return "/".join(map(str, origin))

    @property
    def data(self) -> Data:
        """Its artifacts' values, each loaded on access.

        If it has failed, they are what it had set by then; of a task whose worker died, and of one
        that was stopped with its run, there are none.
        """
        told = self._attempts
        return Data(told.record.place, self.pathspec, told.manifest, told.why_missing)

    @property
    def metadata_dict(self) -> dict[str, str]:
        """The same as text by name: `attempt`, `attempt_ok`, `user`, `python_version`, and so on.

        `origin-run-id` and `origin-task-id` are there for a task that was taken over, and
        `foreach-indices` within a foreach. `attempt_ok` is there once the attempt has ended.
        """
        return facts_of(self._attempts)

    def _cells(self) -> tuple[str, ...]:
        took = "" if self.seconds is None else how_long(self.seconds)
        item = self.item or ", ".join(map(str, self.path))
        return self.id, item, self._outcome(), local_time(self.created_at), took

    def _describe(self) -> str:
        said, seconds = self._outcome(), self.seconds
        return said if seconds is None else f"{said}, {how_long(seconds)}"

    def _outcome(self) -> str:
        said, failure = str(self.status), self.exception
        if failure is not None:
            said = f"{said}: {failure.type}: {failure.message}".partition("\n")[0]
        return said
