"""Runs that are there already: with a key, or interrupted. For threads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncflow.errors import JournalError

if TYPE_CHECKING:
    from asyncflow.store.interface import RunStore, StoredRun


def begun_run(store: RunStore, flow: str, run_id: str) -> StoredRun | None:
    """The run with an id, if it has begun and was not removed; None without an id."""
    if not run_id:
        return None
    from asyncflow.client.run_files import FlowPlace, RunRecord

    record = RunRecord(FlowPlace(store, flow), run_id)
    return record.stored if record.exists() else None


def run_of_key(store: RunStore, *, flow: str, key: str) -> StoredRun | None:
    """The run that was started with a key.

    Raises:
        StoreError: The store cannot be read.
    """
    return begun_run(store, flow, store.run_of_key(flow, key))


def interrupted_runs(store: RunStore, *, flow: str) -> list[str]:
    """The ids of a flow's interrupted runs that no other run has resumed, oldest first.

    See `was_interrupted` for which these are. A run that cannot be read is passed over:
    `asyncflow verify` names it.

    Raises:
        StoreError: The flow's runs cannot be read.
    """
    from asyncflow.client.resumptions import Resumptions, was_interrupted
    from asyncflow.client.run_files import FlowPlace, RunRecord

    place = FlowPlace(store, flow)
    resumptions = Resumptions(place)
    found: list[str] = []
    for run_id in store.runs(flow):
        record = RunRecord(place, run_id)
        try:
            interrupted = record.exists() and was_interrupted(record)
        except JournalError:
            continue
        if interrupted and not resumptions.of(run_id):
            found.append(run_id)
    return found[::-1]
