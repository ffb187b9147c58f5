"""Which run has resumed which, kept for a whole store: the first event of each run is read once."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

from asyncflow.client.run_files import RunRecord
from asyncflow.errors import AsyncflowError

if TYPE_CHECKING:
    from asyncflow.client.run_files import FlowPlace

_SECONDS: Final = 2.0
"""How long one question may read: an old run of a flow with very many may miss some for a while."""


_YOUNG: Final = 8
"""A run that has not begun when it is read may turn out to be a resume: so many are read again."""


class _OfFlow:
    """What is known of one flow."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.read: set[str] = set()
        self.resumed: dict[str, list[str]] = {}


class ResumedRuns:
    """Answers by which runs a run was resumed. Threads may share one."""

    def __init__(self) -> None:
        """Read nothing yet."""
        self._flows: dict[str, _OfFlow] = {}

    def of(self, place: FlowPlace, run_id: str) -> list[str]:
        """The ids of the runs that have resumed this one, oldest first.

        Raises:
            StoreError: The store cannot be read.
        """
        known = self._flows.setdefault(place.flow, _OfFlow())
        until = time.monotonic() + _SECONDS
        with known.lock:
            for at, younger in enumerate(place.store.runs(place.flow)):
                if int(younger) <= int(run_id) or time.monotonic() > until:
                    break
                if younger not in known.read:
                    self._read(place, known, younger)
                    if at >= _YOUNG:
                        known.read.add(younger)
            return sorted(known.resumed.get(run_id, ()), key=int)

    @staticmethod
    def _read(place: FlowPlace, known: _OfFlow, run_id: str) -> None:
        record = RunRecord(place, run_id)
        try:
            origin = record.started.origin_run_id if record.exists() else None
        except (AsyncflowError, OSError):
            return  # the list says what is wrong with it
        if origin is not None and run_id not in known.resumed.setdefault(origin, []):
            known.resumed[origin].append(run_id)
