"""What a run writes when it ends: its last event, and the summary beside its journal."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from asyncflow.events.types import RunCancelled, RunFailed, RunSucceeded
from asyncflow.scheduling.input_offsets import SPILLED
from asyncflow.store.run_index import write_summary
from asyncflow.store.run_times import write_times
from asyncflow.values import Failure, Status

if TYPE_CHECKING:
    from asyncflow.events.types import Event
    from asyncflow.scheduling.commands import FinishRun
    from asyncflow.scheduling.facts_to_events import Batch, Recorder
    from asyncflow.scheduling.run_identity import RunIdentity
    from asyncflow.store.run_index import RunIndex


class RunEnding:
    """The end of one run."""

    def __init__(self, identity: RunIdentity, recorder: Recorder, index: RunIndex) -> None:
        self._identity, self._recorder, self._index = identity, recorder, index

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

    def summarize(self, size: int) -> None:
        """Write the summary and the times beside a journal of this size; in a thread.

        Without them a reader replays the journal: no harm done.
        """
        identity, index = self._identity, self._index
        with suppress(OSError):
            write_times(identity.stored, index.attempts, size)
        summary = index.summary(journal_bytes=size, events=self._recorder.seq)
        with suppress(OSError):
            identity.stored.delete_files(SPILLED)
            write_summary(identity.stored, summary, index.table)
