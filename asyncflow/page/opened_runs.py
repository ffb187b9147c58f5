"""The runs that the page has open: some at a time, so that a question needs no second opening."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from asyncflow.client.flow_facts import no_flow
from asyncflow.client.objects import Run, Task
from asyncflow.client.run_files import FlowPlace, RunRecord
from asyncflow.client.run_names import LATEST
from asyncflow.errors import NotFoundError
from asyncflow.page.resumed_runs import ResumedRuns
from asyncflow.store import open_store

if TYPE_CHECKING:
    from asyncflow.store.interface import RunStore

_MOST_OPEN: Final = 200
_MOST_JOURNAL_BYTES: Final = 64 << 20
"""Of the runs that are open: one of 100,000 tasks has 23 MB, and takes some megabytes itself."""
_LEAST_OPEN: Final = 2


class OpenedRuns:
    """A store, and the runs of it that were asked for last. Threads may share one."""

    def __init__(self, location: str, *, later: bool = False) -> None:
        """Open a store that exists; `later`, when it is first asked for.

        Raises:
            StoreError: There is none, or it cannot be read.
        """
        self.location: Final = location
        self._lock = threading.Lock()
        self.resumed: Final = ResumedRuns()
        """By which runs others were resumed."""
        self._store: RunStore | None = None if later else open_store(location)
        self._places: dict[str, FlowPlace] = {}
        self._records: OrderedDict[tuple[str, str], RunRecord] = OrderedDict()
        self._sizes: dict[tuple[str, str], int] = {}

    @property
    def store(self) -> RunStore:
        """The store.

        Raises:
            StoreError: There is none yet, or it cannot be read.
        """
        if self._store is None:
            self._store = open_store(self.location)
        return self._store

    def place(self, flow: str) -> FlowPlace:
        """A flow's part of the store.

        Raises:
            NotFoundError: There is no such flow.
        """
        with self._lock:
            place = self._places.get(flow)
        if place is None:
            if not self.store.has_flow(flow):
                raise no_flow(self.store, flow)
            place = FlowPlace(self.store, flow)
            with self._lock:
                place = self._places.setdefault(flow, place)
        return place

    def record(self, flow: str, run_id: str) -> RunRecord:
        """A run, which stays open for a while; `latest` is the newest.

        Raises:
            NotFoundError: There is no such run.
            StoreError: The store cannot be read.
        """
        place = self.place(flow)
        if run_id == LATEST:
            run_id = next(iter(self.store.runs(flow)), run_id)
        key = flow, run_id
        with self._lock:
            record = self._records.get(key)
            if record is not None:
                self._records.move_to_end(key)
        if record is None:
            record = RunRecord(place, run_id) if run_id.isdecimal() and run_id.isascii() else None
        if record is None or not record.stored.is_there() or not record.exists():
            self.forget(flow, run_id)
            raise NotFoundError(self.store.has_no_run(flow, run_id))
        size = _journal_size(record)
        with self._lock:
            record = self._records.setdefault(key, record)
            self._records.move_to_end(key)
            self._sizes[key] = size
            while len(self._records) > _LEAST_OPEN and (
                len(self._records) > _MOST_OPEN or sum(self._sizes.values()) > _MOST_JOURNAL_BYTES
            ):
                closed, _ = self._records.popitem(last=False)
                del self._sizes[closed]
        return record

    def run(self, flow: str, run_id: str) -> Run:
        """The same as the client's object.

        Raises:
            NotFoundError: There is no such run.
        """
        return run_of(self.record(flow, run_id))

    def forget(self, flow: str, run_id: str) -> None:
        """Close a run: it is gone."""
        with self._lock:
            self._records.pop((flow, run_id), None)
            self._sizes.pop((flow, run_id), None)


def _journal_size(record: RunRecord) -> int:
    try:
        return record.stored.journal_size()
    except OSError:  # what reads it says so
        return 0


def run_of(record: RunRecord) -> Run:
    """The client's object for a run, whatever the namespace is."""
    return Run._in(record)  # noqa: SLF001 - a page shows the runs of all namespaces


def task_of(record: RunRecord, step: str, task_id: str) -> Task:
    """The client's object for a task.

    Raises:
        NotFoundError: There is no such task.
    """
    task: Task = run_of(record)[step][task_id]
    return task
