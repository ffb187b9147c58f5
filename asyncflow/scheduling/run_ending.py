"""What a run writes when it ends: its last event, and the summary beside its journal."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from asyncflow.events.types import RunCancelled, RunFailed, RunSucceeded
from asyncflow.scheduling.input_offsets import SPILLED
from asyncflow.store.run_index import write_summary
from asyncflow.store.run_times import times_file
from asyncflow.store.task_table import INDEX
from asyncflow.values import Failure, Status

if TYPE_CHECKING:
    from asyncflow.events.types import Event
    from asyncflow.scheduling.commands import FinishRun
    from asyncflow.scheduling.facts_to_events import Batch, Recorder
    from asyncflow.scheduling.run_identity import RunIdentity
    from asyncflow.store.interface import JournalAppender
    from asyncflow.store.run_index import RunIndex


class RunEnding:
    """The end of one run."""

    def __init__(self, identity: RunIdentity, recorder: Recorder, index: RunIndex) -> None:
        self._identity, self._recorder, self._index = identity, recorder, index
        self._table: bytes | None = None  # of tasks, as it was stored

    def event(self, finish: FinishRun, batch: Batch) -> Event:
        """The last event of the run, according to how the run finished."""
        identity = self._recorder.identity(batch)
        seconds = (batch.microseconds - self._identity.started) / 1e6
        match finish.status:
            case Status.SUCCEEDED:
                return RunSucceeded(**identity, seconds=seconds)
            case Status.CANCELLED:
                return RunCancelled(
                    **identity,
                    reason=finish.reason,
                    seconds=seconds,
                    by_shutdown=finish.by_shutdown,
                )
            case _:
                failure = finish.failure or Failure("", "", 0, "", "", "")
                return RunFailed(
                    **identity,
                    step=failure.step,
                    task_id=failure.task_id,
                    attempt=failure.attempt,
                    exception_type=failure.exception_type,
                    message=failure.message,
                    traceback=failure.traceback,
                    seconds=seconds,
                    item=self._recorder.failed_items.get(failure.task_id, ""),
                )

    def deliver(self, journal: JournalAppender) -> None:
        """Have readers anywhere find the whole journal, and store the tables; in a thread.

        Raises:
            JournalError: They may never find it.
        """
        stored, index = self._identity.stored, self._index
        table = index.table.dump()
        with suppress(OSError):
            files = {**times_file(index.attempts, journal.size), INDEX: table}
            stored.put_files(files, journal.deliver)
            self._table = table

    def summarize(self, size: int) -> None:
        """Write the summary beside a journal of this size, if the tables are there; in a thread.

        Without it a reader replays the journal: no harm done.
        """
        stored, index = self._identity.stored, self._index
        summary = index.summary(journal_bytes=size, events=self._recorder.seq)
        with suppress(OSError):
            stored.delete_files(SPILLED)
            if self._table is not None:
                write_summary(stored, summary, self._table)
