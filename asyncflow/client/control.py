"""What can be asked of a run that an engine is running, in whatever process that is."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from asyncflow.client.resume_hint import resume_command
from asyncflow.client.views import RunView
from asyncflow.errors import RunNotActiveError
from asyncflow.store.mailbox import CANCEL, post
from asyncflow.values import Status

if TYPE_CHECKING:
    from asyncflow.client.run_files import RunRecord

_PAUSE_SECONDS: Final = 0.02


class RunControl(RunView):
    """Reaches the engine that runs a run, through the run's mailbox."""

    __slots__ = ()

    def cancel(self, reason: str = "", *, seconds: float | None = None) -> bool:
        """Cancel the run, whatever process its engine is in; return whether it has ended.

        The engine is told within a quarter of a second, or a second or two where its store is an
        object store. It then cancels as `RunHandle.cancel` does:
        finished tasks are kept, and the run can be resumed. The last event of the run says who has
        cancelled it, and for which reason. This waits until the run has ended, or for `seconds` at
        most; in a coroutine, call it in a thread.

        Raises:
            RunNotActiveError: It has ended before, or its engine is gone.
            StoreError: The store cannot be written to.
        """
        record = self._record
        _check_active(record)
        post(record.stored, CANCEL, **({"reason": reason} if reason else {}))
        until = None if seconds is None else time.monotonic() + seconds
        while (status := record.status()) is Status.RUNNING:
            if until is not None and time.monotonic() >= until:
                return False
            time.sleep(_PAUSE_SECONDS)
        if status is not Status.CANCELLED:  # it has ended before it was told
            raise _not_active(record, status)
        return True


def _check_active(record: RunRecord) -> None:
    status = record.status()
    if status is not Status.RUNNING:
        raise _not_active(record, status)


def _not_active(record: RunRecord, status: Status) -> RunNotActiveError:
    if status is Status.INTERRUPTED:
        how = f"is interrupted: its engine is gone; to go on: {resume_command(record.stored)}"
    else:
        how = f"has ended already: it {_ENDED[status]}"
    return RunNotActiveError(f"{record.pathspec} {how}")


_ENDED: Final = {
    Status.SUCCEEDED: "succeeded",
    Status.FAILED: "failed",
    Status.CANCELLED: "was cancelled",
}
