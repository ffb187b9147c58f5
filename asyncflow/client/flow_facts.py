"""Facts about a flow alone, and the choice among the records of its runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncflow.client.namespaces import store_to_read
from asyncflow.client.run_files import FlowPlace, RunRecord
from asyncflow.client.views import View
from asyncflow.client.words import how_many, some_of
from asyncflow.errors import NotFoundError
from asyncflow.events.types import from_microseconds
from asyncflow.store import open_store

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from asyncflow.store.interface import RunStore


def place_of(flow: str, store: str | os.PathLike[str] | None) -> FlowPlace:
    """A flow's part of the named store, or of the store that the client reads.

    Raises:
        NotFoundError: The store has no such flow.
        StoreError: There is no store, or it cannot be read.
    """
    opened = open_store(store_to_read(store))
    if not opened.has_flow(flow):
        raise no_flow(opened, flow)
    return FlowPlace(opened, flow)


def no_flow(store: RunStore, flow: str) -> NotFoundError:
    """The error for a missing flow; it lists the flows that exist."""
    there = some_of(store.flows(), flow)
    return NotFoundError(f"the store {store.location} has no flow {flow!r}; it has {there}")


class FlowFacts(View):
    """A flow's name, its age, and the records of its runs."""

    __slots__ = ("_place",)
    _COLUMNS = ("run", "status", "started", "took", "tags")
    _place: FlowPlace

    @property
    def path_components(self) -> tuple[str, ...]:
        """The parts of the pathspec."""
        return (self._place.flow,)

    @property
    def parent(self) -> None:
        """None: a flow has no parent."""
        return

    @property
    def created_at(self) -> datetime | None:
        """When its oldest run was started, UTC; None if it has none."""
        run_ids = reversed(self._place.store.runs(self._place.flow))
        record = next(filter(None, map(self._record_of, run_ids)), None)
        return None if record is None else from_microseconds(record.summary().started)

    @property
    def origin_pathspec(self) -> None:
        """None: a flow resumes nothing."""
        return

    def _record_of(self, run_id: str) -> RunRecord | None:
        """The record of a run, in the namespace or not; None if there is no such run."""
        if not run_id.isdecimal():
            return None
        record = RunRecord(self._place, run_id)
        return record if record.exists() else None

    def _chosen(self, is_chosen: Callable[[RunRecord], bool]) -> Iterator[RunRecord]:
        """The records of the chosen runs, newest first."""
        for record in map(self._record_of, self._place.store.newest_runs(self._place.flow)):
            if record is not None and is_chosen(record):
                yield record

    def _describe(self) -> str:
        return how_many(len(self._place.store.runs(self._place.flow)), "run")
