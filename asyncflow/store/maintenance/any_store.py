"""Verifying, collecting and removing in a store of any kind."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from asyncflow.errors import StoreError
from asyncflow.store.local_store import LocalStore
from asyncflow.store.maintenance.collect import collect
from asyncflow.store.maintenance.reachable import ProgressListener, ignore_progress
from asyncflow.store.maintenance.remove import Chosen, choose, remove
from asyncflow.store.maintenance.verify import verify

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from asyncflow.store.interface import RunStore
    from asyncflow.store.maintenance.collect import Collected
    from asyncflow.store.maintenance.findings import Verified
    from asyncflow.store.maintenance.remove import Removed
    from asyncflow.store.object_store.object_store import ObjectStore


def verify_store(
    store: RunStore, *parts: str, on_progress: Callable[[Verified], None] = lambda _: None
) -> Verified:
    """Verify a run, or all of a flow, or the whole store."""
    if isinstance(store, LocalStore):
        return verify(store, *parts, on_progress=on_progress)
    from asyncflow.store.maintenance.object_verify import verify_objects

    return verify_objects(_of_objects(store), *parts, on_progress=on_progress)


def collect_in(
    store: RunStore,
    *,
    dry_run: bool,
    on_wait: Callable[[str], None],
    on_progress: ProgressListener = ignore_progress,
) -> Collected:
    """Delete what nobody needs, or with `dry_run` count it.

    Raises:
        JournalError: A journal is damaged, so what it needs is unknown; nothing was deleted.
        StoreError: Something cannot be deleted.
    """
    if isinstance(store, LocalStore):
        return collect(store, dry_run=dry_run, on_wait=on_wait, on_progress=on_progress)
    from asyncflow.store.maintenance.object_collect import collect_objects

    return collect_objects(
        _of_objects(store), dry_run=dry_run, on_wait=on_wait, on_progress=on_progress
    )


def choose_in(
    store: RunStore, flows: Iterable[str], *, older_than: float | None, keep_last: int
) -> Chosen:
    """Runs started more than `older_than` seconds ago, except the last few of each flow."""
    if isinstance(store, LocalStore):
        return choose(store, flows, older_than=older_than, keep_last=keep_last)
    before = (time.time() - (older_than or 0)) * 1e6
    chosen: list[tuple[str, str]] = []
    running: list[tuple[str, str]] = []
    for flow in flows:
        for run_id in store.runs(flow)[keep_last:]:
            if older_than is None or int(run_id) <= before:
                is_running = store.run(flow, run_id).is_being_written()
                (running if is_running else chosen).append((flow, run_id))
    return Chosen(tuple(chosen), tuple(running), ())


def remove_from(
    store: RunStore,
    runs: Sequence[tuple[str, str]],
    *,
    dry_run: bool,
    on_wait: Callable[[str], None],
) -> list[Removed]:
    """Remove runs: all of them, or none if one may not be removed.

    Raises:
        NotFoundError: There is no such run.
        RemoveError: It is running, or a running run is taking tasks over from it.
        JournalError: What a running run takes over is unknown.
        StoreError: Something cannot be deleted.
    """
    if isinstance(store, LocalStore):
        return remove(store, runs, dry_run=dry_run, on_wait=on_wait)
    from asyncflow.store.maintenance.object_remove import remove_objects

    return remove_objects(_of_objects(store), runs, dry_run=dry_run, on_wait=on_wait)


def _of_objects(store: RunStore) -> ObjectStore:
    from asyncflow.store.object_store.object_store import ObjectStore

    if not isinstance(store, ObjectStore):
        raise StoreError(f"{store.location} is of a kind that has no maintenance")
    return store
