"""Removes runs: they vanish from listings at once, and files that others need are kept.

A run is removed by renaming its folder to `flows/NAME/.removed/RUN`. Files that no other run refers
to are then deleted from there. A run that resumed it may refer to its values and to the output of
its tasks: those files stay, and refs find them. A crash in between leaves a removed run with more
files than necessary; the garbage collection deletes them.

A run that is just starting to take tasks over cannot lose its origin. Once its own first event is
on disk, it checks whether its origin is still there. Once the origin has been renamed, we check
whether there is such an event. One of the two sees the other.
"""

from __future__ import annotations

import os
import stat
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from asyncflow.errors import NotFoundError, RemoveError, StoreError
from asyncflow.store.files import explain
from asyncflow.store.folders import is_link
from asyncflow.store.journal import is_being_written, later_format
from asyncflow.store.maintenance.collect import Amount, forget_newest, prune, set_aside
from asyncflow.store.maintenance.reachable import Marks, exclusive, resumers
from asyncflow.store.run_ids import REMOVED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from asyncflow.store.layout import Layout


@dataclass(frozen=True, slots=True)
class Removed:
    """A run that was removed, or with `dry_run` would be."""

    flow: str
    run_id: str
    freed: Amount = field(default_factory=Amount)
    """The files deleted from its folder; the garbage collection frees its blobs."""
    kept: tuple[str, ...] = ()
    """Its files that other runs refer to."""
    strange: tuple[str, ...] = ()
    """Files in its folder that the store did not create; they are in `.removed` now."""
    link: bool = False
    """Whether its folder was a link: only the link was deleted."""

    @property
    def pathspec(self) -> str:
        """`Flow/run`."""
        return f"{self.flow}/{self.run_id}"

    def to_data(self) -> dict[str, Any]:
        """As plain data, for JSON."""
        return {
            "pathspec": self.pathspec,
            "files": self.freed.files,
            "bytes": self.freed.size,
            "kept": list(self.kept),
            "strange": list(self.strange),
            "link": self.link,
        }


@dataclass(frozen=True, slots=True)
class Chosen:
    """The runs that the filters have chosen."""

    runs: tuple[tuple[str, str], ...]
    running: tuple[tuple[str, str], ...]
    """Runs that match the filters, but are running."""
    unreadable: tuple[str, ...] = ()
    """For each flow whose runs cannot be listed, the reason."""


def choose(
    layout: Layout, flows: Iterable[str], *, older_than: float | None, keep_last: int
) -> Chosen:
    """Runs started more than `older_than` seconds ago, except the last few of each flow."""
    before = (time.time() - (older_than or 0)) * 1e6
    chosen: list[tuple[str, str]] = []
    running: list[tuple[str, str]] = []
    unreadable: list[str] = []
    for flow in flows:
        try:
            runs = layout.runs(flow)
        except StoreError as error:
            unreadable.append(str(error))
            continue
        for run_id in runs[keep_last:]:
            if older_than is not None and int(run_id) > before:
                continue
            busy = is_being_written(layout.run_dir(flow, run_id) / "journal")
            (running if busy else chosen).append((flow, run_id))
    return Chosen(tuple(chosen), tuple(running), tuple(unreadable))


def remove(
    layout: Layout,
    runs: Sequence[tuple[str, str]],
    *,
    dry_run: bool = False,
    on_wait: Callable[[str], None] = lambda _: None,
) -> list[Removed]:
    """Remove runs: all of them, or none if one may not be removed.

    If other processes are removing or collecting, `on_wait` gets a text that says so. Killed: each
    run is removed or not; the garbage collection deletes what is left of it.

    Raises:
        NotFoundError: There is no such run.
        RemoveError: It is running, a running run is taking tasks over from it, a later version of
            asyncflow wrote it, or it is a link and other runs need files behind it.
        StoreError: The store has no file locks, or a file cannot be deleted.
        JournalError: The journal of a running run is damaged, so that what it takes over is
            unknown; or that of a run from which it takes over.
    """
    with exclusive(layout, on_wait):
        flows = {flow for flow, _ in runs}
        for flow, run_id in runs:
            _check(layout, flow, run_id)
        _check_resumers(layout, flows, runs)
        marks = Marks(layout, removing=runs)
        for flow in flows:
            marks.read_resumed(flow)
        try:
            for flow, run_id in runs:
                _check_link(layout, marks, flow, run_id)
            if not dry_run:
                _set_aside(layout, flows, runs)
                for flow in flows:  # runs that have resumed them and ended since they were read
                    marks.read_news(flow)
                    marks.read_removed(flow)
            return [_prune(layout, marks, flow, run_id, dry_run) for flow, run_id in runs]
        except OSError as error:
            raise StoreError(explain(error.filename, error, doing="delete")) from error


def _check(layout: Layout, flow: str, run_id: str) -> None:
    folder = layout.run_dir(flow, run_id)
    if not os.path.isdir(folder):  # noqa: PTH112 - the alternative raises if that cannot be known
        raise NotFoundError(layout.has_no_run(flow, run_id))
    if number := later_format(folder / "journal"):
        raise RemoveError(
            f"{flow}/{run_id} was written by a later version of asyncflow, in format {number}, and "
            "this one cannot tell whether it is running: upgrade asyncflow to remove it"
        )
    if is_being_written(folder / "journal"):
        raise RemoveError(f"{flow}/{run_id} is running: wait for its end, or cancel it")


def _check_resumers(layout: Layout, flows: Iterable[str], runs: Iterable[tuple[str, str]]) -> None:
    wanted = set(runs)
    for flow in flows:
        for origin, resumer in resumers(layout, flow).items():
            if (flow, origin) in wanted:
                raise RemoveError(
                    f"{flow}/{origin} is needed: {flow}/{resumer} is running and takes finished "
                    "tasks over from it; wait for its end, or cancel it"
                )


def _set_aside(layout: Layout, flows: Iterable[str], runs: Sequence[tuple[str, str]]) -> None:
    for flow, run_id in runs:
        set_aside(layout, flow, run_id)
    try:
        _check_resumers(layout, flows, runs)
    except RemoveError:  # the run has just begun
        for flow, run_id in runs:
            with (
                suppress(OSError),
                layout.folder("flows", flow) as folder,
                folder.child(REMOVED) as removed,
            ):
                removed.rename(run_id, folder, run_id)
            forget_newest(layout, flow)
        raise


def _check_link(layout: Layout, marks: Marks, flow: str, run_id: str) -> None:
    """Refuse to remove a link through which other runs find values; others may be broken."""
    folder = layout.run_dir(flow, run_id)
    if is_link(folder) and any(marks.needs(flow, run_id, name) for name in os.listdir(folder)):  # noqa: PTH208 - only the names are needed
        raise RemoveError(
            f"{flow}/{run_id} is a link, and other runs need files behind it: remove "
            "those runs first, or replace the link by the folder itself"
        )


def _prune(layout: Layout, marks: Marks, flow: str, run_id: str, dry_run: bool) -> Removed:  # noqa: FBT001 - internal
    freed = Amount()
    place = ("flows", flow) if dry_run else ("flows", flow, REMOVED)
    with layout.folder(*place) as parent:
        link = stat.S_ISLNK(parent.status(run_id).st_mode)
        left = prune(parent, run_id, marks, (flow, run_id), freed, dry_run=dry_run)
    if not dry_run:
        with suppress(OSError), layout.folder("flows", flow) as folder:  # it may not be empty
            folder.delete_folder(REMOVED)
    kept, strange = tuple(sorted(left.needed)), tuple(sorted(left.strange))
    return Removed(flow, run_id, freed, kept, strange, link)
