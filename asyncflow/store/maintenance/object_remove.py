"""Removes runs of an object store; what it promises is that of `remove`.

The objects of a run that others need are copied to `flows/FLOW/.removed/RUN/`, and only then the
run's own are deleted, the summary and the first piece of its journal first: without that there is
no run. A crash
before leaves the run as it was, and copies that the next attempt uses or a collection deletes. A
crash after it leaves objects of no run, which a collection deletes.

A run that is not sealed is sealed first, so that its writer, if it should live, ends.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from asyncflow._support.commit_points import reached
from asyncflow.errors import NotFoundError, RemoveError, StoreError
from asyncflow.store.files import explain
from asyncflow.store.maintenance.collect import Amount
from asyncflow.store.maintenance.object_marks import ObjectMarks, collecting
from asyncflow.store.maintenance.reachable import resumers
from asyncflow.store.maintenance.remove import Removed
from asyncflow.store.object_store.pieces import name_of
from asyncflow.store.object_store.sent_journal import JOURNAL
from asyncflow.store.run_index import SUMMARY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from asyncflow.store.object_store.object_store import ObjectStore
    from asyncflow.store.object_store.objects import ObjectFacts

_FIRST = f"{JOURNAL}/{name_of(0)}"
"""The name of the first piece of a journal."""


def remove_objects(
    store: ObjectStore,
    runs: Sequence[tuple[str, str]],
    *,
    dry_run: bool = False,
    on_wait: Callable[[str], None] = lambda _: None,
) -> list[Removed]:
    """Remove runs: all of them, or none if one may not be removed.

    Raises:
        NotFoundError: There is no such run.
        RemoveError: It is running, or a running run is taking tasks over from it.
        JournalError: The journal of a running run is damaged, so that what it takes over is
            unknown; or that of a run from which it takes over.
        StoreError: The store refuses, or does not answer.
    """
    try:
        with collecting(store, on_wait) as collector:
            for flow, run_id in runs:
                _check(store, flow, run_id)
            _check_resumers(store, runs)
            marks = ObjectMarks(store, removing=runs, changes_nothing=True)
            flows = {flow for flow, _ in runs}
            for flow in flows:
                marks.read_resumed(flow)
            if not dry_run:
                for flow, run_id in runs:
                    store.run(flow, run_id).end_writing()
                for flow in flows:  # runs that have resumed them meanwhile
                    marks.read_news(flow)
                    marks.read_removed(flow)
            removed = []
            for flow, run_id in runs:
                removed.append(_remove(store, marks, flow, run_id, runs, dry_run=dry_run))
                collector.beat()
            return removed
    except OSError as error:
        raise StoreError(explain(error.filename, error, doing="remove from")) from error


def _check(store: ObjectStore, flow: str, run_id: str) -> None:
    run = store.run(flow, run_id)
    if not run.is_there():
        raise NotFoundError(store.has_no_run(flow, run_id))
    if run.is_being_written():
        raise RemoveError(f"{flow}/{run_id} is running: wait for its end, or cancel it")


def _check_resumers(store: ObjectStore, runs: Iterable[tuple[str, str]]) -> None:
    wanted = set(runs)
    for flow in {flow for flow, _ in wanted}:
        for origin, resumer in resumers(store, flow).items():
            if (flow, origin) in wanted:
                raise RemoveError(
                    f"{flow}/{origin} is needed: {flow}/{resumer} is running and takes finished "
                    "tasks over from it; wait for its end, or cancel it"
                )


def _remove(
    store: ObjectStore,
    marks: ObjectMarks,
    flow: str,
    run_id: str,
    runs: Sequence[tuple[str, str]],
    *,
    dry_run: bool,
) -> Removed:
    objects = store.objects
    run = store.run(flow, run_id)
    kept: dict[str, list[ObjectFacts]] = {}
    freed = Amount()
    found = [*objects.listed(run.folder)]
    for facts in found:
        name = facts.name[len(run.folder) + 1 :].partition("/")[0]
        if marks.needs(flow, run_id, name):
            kept.setdefault(name, []).append(facts)
        else:
            freed.add(facts.size)
    removed = Removed(flow, run_id, freed, tuple(sorted(kept)))
    if dry_run:
        return removed
    place = store.run(flow, run_id, removed=True).folder
    for facts in (each for name in kept for each in reversed(kept[name])):
        # The first piece of a journal last: the others are nothing without it.
        reached("rm.copy")
        objects.copy(facts.name, f"{place}/{facts.name[len(run.folder) + 1 :]}")
    _delete_first(store, flow, run_id, runs)
    reached("rm.delete")
    objects.delete([facts.name for facts in found])
    store.run(flow, run_id).forget()
    return removed


def _delete_first(
    store: ObjectStore, flow: str, run_id: str, runs: Sequence[tuple[str, str]]
) -> None:
    """Delete what makes a run one, unless somebody has begun to resume it.

    That is the first piece of its journal. The summary goes before: without the journal it would
    be damage.
    """
    objects, folder = store.objects, store.run(flow, run_id).folder
    deleted: dict[str, bytes] = {}
    for name in (SUMMARY, _FIRST):
        with suppress(FileNotFoundError):  # an earlier attempt came as far as here
            deleted[f"{folder}/{name}"] = objects.get(f"{folder}/{name}")
            reached("rm.first")
            objects.delete([f"{folder}/{name}"])
            reached("rm.gone")
    try:
        _check_resumers(store, runs)
    except RemoveError:
        for name, data in reversed(deleted.items()):
            objects.create(name, data)
        raise
