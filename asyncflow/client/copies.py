"""Copies of runs in other stores."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncflow.store import open_store
from asyncflow.store.maintenance.copy_runs import choose_all
from asyncflow.store.maintenance.copy_runs import copy_runs as copy_chosen

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from asyncflow.store.maintenance.copy_runs import CopiedRun, CopyProgress


def copy_runs(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *runs: str,
    on_progress: Callable[[CopyProgress], None] = lambda _: None,
) -> list[CopiedRun]:
    """Copy runs, each as `Flow/run`, from one store to another, with all that they need.

    Without `runs`, all of them are copied but those that are running. The runs from which they have
    taken tasks over are copied as well. Everything is verified by its hash. A run appears in the
    target at once, when it is complete; if the copy is stopped before, repeat it. A run that is
    there already is compared and stays. This waits for disks and networks: on an event loop, use a
    thread.

    Raises:
        NotFoundError: There is no such run.
        CopyError: A run is running, or the target has another one with its id.
        JournalError: A journal is damaged.
        ArtifactError: A value is missing or damaged.
        StoreError: A store cannot be read or written.
    """
    origin = open_store(source)
    if runs:
        chosen = [_parts(each) for each in runs]
    else:
        chosen, _ = choose_all(origin, origin.flows())
    store = open_store(target, create=True)
    try:
        return copy_chosen(origin, store, chosen, on_progress=on_progress)
    finally:
        store.close()


def _parts(pathspec: str) -> tuple[str, str]:
    flow, _, run_id = pathspec.partition("/")
    if not flow or not run_id or "/" in run_id:
        message = f"{pathspec!r} is not of the form Flow/run"
        raise ValueError(message)
    return flow, run_id
