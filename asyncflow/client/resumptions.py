"""Which run of a flow has resumed which; only the younger run's first event says so."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncflow.client.run_files import RunRecord
from asyncflow.errors import JournalError
from asyncflow.events.types import RunCancelled
from asyncflow.store.run_index import SUMMARY
from asyncflow.values import Status

if TYPE_CHECKING:
    from asyncflow.client.run_files import FlowPlace


class Resumptions:
    """Reads the first events of a flow's runs, newest first, each once, as far as needed."""

    def __init__(self, place: FlowPlace) -> None:
        """Read nothing yet."""
        self._place = place
        self._unread = place.store.newest_runs(place.flow)
        self._next = next(self._unread, None)
        self._of: dict[str, list[str]] = {}

    def of(self, run_id: str) -> list[str]:
        """The ids of the runs that have resumed this one, oldest first.

        A run whose journal cannot be read is skipped.
        """
        while self._next is not None and int(self._next) > int(run_id):
            origin = self._origin_of(self._next)
            if origin is not None:
                self._of.setdefault(origin, []).insert(0, self._next)
            self._next = next(self._unread, None)
        return self._of.get(run_id, [])

    def _origin_of(self, run_id: str) -> str | None:
        record = RunRecord(self._place, run_id)
        try:
            return record.started.origin_run_id if record.exists() else None
        except JournalError:
            return None


def was_interrupted(record: RunRecord) -> bool:
    """Whether a run is unfinished although nobody has wanted that: it is to be taken up.

    Its engine is gone without recording an end, or was closed; a run that somebody has cancelled is
    none. Of a run that has ended otherwise, only the summary is read.

    Raises:
        JournalError: It is damaged.
    """
    status = record.summary().status if record.stored.has_file(SUMMARY) else record.status()
    if status is Status.CANCELLED:
        ended = record.ended()
        return isinstance(ended, RunCancelled) and ended.by_shutdown
    return status is Status.INTERRUPTED
