"""What a run leaves behind when it ends: its last event, and the summary beside its journal."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from asyncflow.events.types import RunCancelled, RunFailed, RunSucceeded
from asyncflow.store.folders import Folder
from asyncflow.store.journal import HEADER
from asyncflow.store.run_index import Summary, write_summary
from asyncflow.values import Failure, Status

if TYPE_CHECKING:
    from asyncflow.events.types import Event
    from asyncflow.scheduling.facts_to_events import Batch, Recorder
    from asyncflow.scheduling.plan import FinishRun
    from asyncflow.scheduling.run_identity import RunIdentity


class RunEnding:
    """The end of one run."""

    def __init__(self, identity: RunIdentity, recorder: Recorder) -> None:
        self._identity, self._recorder = identity, recorder

    def event(self, finish: FinishRun, batch: Batch) -> Event:
        """The last event of the run, by how the run has finished."""
        identity = self._recorder.identity(batch)
        seconds = (batch.microseconds - self._identity.started) / 1e6
        match finish.status:
            case Status.SUCCEEDED:
                return RunSucceeded(**identity, seconds=seconds)
            case Status.CANCELLED:
                return RunCancelled(**identity, reason=finish.reason, seconds=seconds)
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
                )

    def summarize(self, status: Status, last: int, finished: int, size: int) -> None:
        """Write the summary; in a thread. Without it a reader replays the journal: no harm done."""
        identity, recorder = self._identity, self._recorder
        counts = recorder.table.counts(len(recorder.step_numbers))
        summary = Summary(
            status=status,
            started=identity.started,
            finished=finished,
            flow=identity.flow,
            run_id=identity.run_id,
            first=len(HEADER),
            last=last,
            journal_bytes=size,
            events=recorder.seq,
            end_task=recorder.end_task,
            steps=[(name, counts[number]) for name, number in recorder.step_numbers.items()],
            tags=identity.tags,
        )
        with suppress(OSError):
            with Folder.open(identity.store, "flows", identity.flow, identity.run_id) as folder:
                for entry in folder.entries():
                    if entry.name.startswith("inputs-"):
                        folder.delete(entry.name)
            write_summary(identity.run_dir, summary, recorder.table)
