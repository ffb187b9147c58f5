"""The garbage collection: deletes files that no journal refers to, and files left by crashes.

It marks, then sweeps, while runs go on. It must not delete a value that was put but not announced
yet. When a blob is put, its time of modification is at most `TOUCH_SECONDS` old. So a blob is
spared unless its time is more than that and a grace before now, and more than that before the start
of the oldest running run. However long a task takes between putting a value and reporting it, its
run is older.

A crash at any moment leaves a store as whole as before, and the next collection goes on.

Only files with names that the store creates are deleted, and none behind a link, which may lead to
other people's files: see `asyncflow.store.folders`.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

from asyncflow._support.commit_points import reached
from asyncflow.errors import StoreError
from asyncflow.store.blobs import TOUCH_SECONDS
from asyncflow.store.files import explain
from asyncflow.store.layout import ASIDE, COPYING, FORMAT_DRAFT
from asyncflow.store.limit_files import DRAFT
from asyncflow.store.mailbox import MAILBOX
from asyncflow.store.maintenance.reachable import (
    Marks,
    ProgressListener,
    Stage,
    exclusive,
    ignore_progress,
)
from asyncflow.store.run_ids import NEWEST, REMOVED, RUN_ID, note_run
from asyncflow.store.run_tags import TAGS
from asyncflow.store.segments import SUFFIX

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from asyncflow.store.folders import Folder
    from asyncflow.store.layout import Layout

GRACE_SECONDS: Final = 3600
"""The most time from a run's folder to its first event, and between the clocks of machines."""

DRAFT_SECONDS: Final = 86_400
"""A blob that is being written is written to at least once a day."""

_DIGEST_HEX: Final = re.compile(r"[0-9a-f]{64}")
_SHARD: Final = re.compile(r"[0-9a-f]{2}")
_DRAFT: Final = re.compile(r"[0-9a-f]{24}")
LEFT_BEHIND: Final = re.compile(r"\.?inputs-\d+|\.index|\.summary|\.times")
"""Files of a run that nobody reads once it has ended."""
_UPDATED: Final = (TAGS, MAILBOX)
"""Files of a run that any process may change."""
_DRAFTS: Final = tuple(f".{name}" for name in _UPDATED)
_OF_A_RUN: Final = re.compile(
    rf"journal|summary|index|times|\.?({'|'.join(_UPDATED)})|.+{re.escape(SUFFIX)}|{LEFT_BEHIND.pattern}"
)
"""The names of a run's files."""


@dataclass(slots=True)
class Amount:
    """A number of files, and their bytes."""

    files: int = 0
    size: int = 0

    def add(self, size: int, files: int = 1) -> None:
        """Add files of this many bytes."""
        self.files += files
        self.size += size


@dataclass(frozen=True, slots=True)
class Collected:
    """What a collection has deleted, or with `dry_run` would delete."""

    dry_run: bool
    blobs: Amount = field(default_factory=Amount)
    """Blobs that no journal refers to."""
    drafts: Amount = field(default_factory=Amount)
    """Blobs that were never finished."""
    segments: Amount = field(default_factory=Amount)
    """Segments that no journal refers to."""
    leftovers: Amount = field(default_factory=Amount)
    """Temporary files of runs that have ended, and folders of runs that never began."""
    removed: Amount = field(default_factory=Amount)
    """Files of removed runs that nothing refers to any more."""
    spared: Amount = field(default_factory=Amount)
    """Blobs that no journal refers to, too young to be deleted."""
    kept: Amount = field(default_factory=Amount)
    """Blobs that journals refer to; their bytes are not counted."""
    links: list[str] = field(default_factory=list)
    """Links in place of folders of the store; the collection did not follow them."""

    @property
    def total(self) -> Amount:
        """Everything that was deleted."""
        parts = (self.blobs, self.drafts, self.segments, self.leftovers, self.removed)
        return Amount(sum(part.files for part in parts), sum(part.size for part in parts))

    def to_data(self) -> dict[str, Any]:
        """As plain data, for JSON."""
        data = asdict(self)
        del data["kept"]["size"]
        return {**data, "total": asdict(self.total)}


def collect(
    layout: Layout,
    *,
    dry_run: bool = False,
    on_wait: Callable[[str], None] = lambda _: None,
    on_progress: ProgressListener = ignore_progress,
) -> Collected:
    """Delete files that nobody needs, or with `dry_run` count them.

    `on_progress` hears how far it is: what is counted, how many are done, and of how many. If other
    processes are removing or collecting, `on_wait` gets a text that says so. Cancelled or killed:
    some files are deleted, but none that anybody needs.

    Raises:
        JournalError: A journal is damaged, so what it needs is unknown; nothing was deleted.
        StoreError: A file cannot be deleted, or the store has no file locks.
    """
    with exclusive(layout, on_wait):
        now = time.time()
        marks = Marks(layout)
        marks.read_all(on_progress)
        sweep = _Sweep(layout, marks, now, on_progress, dry_run=dry_run)
        try:
            return sweep.run()
        except OSError as error:
            raise StoreError(explain(error.filename, error, doing="delete")) from error


class _Sweep:
    """The second half of a collection."""

    def __init__(
        self,
        layout: Layout,
        marks: Marks,
        now: float,
        on_progress: ProgressListener,
        *,
        dry_run: bool,
    ) -> None:
        self._layout, self._marks, self._dry_run = layout, marks, dry_run
        self._on_progress = on_progress
        self._old = now - GRACE_SECONDS
        self._old_draft = now - DRAFT_SECONDS
        since = now - GRACE_SECONDS
        if marks.running_since is not None:
            since = min(since, marks.running_since / 1e6)
        self._young = since - TOUCH_SECONDS
        self._collected = Collected(dry_run)

    def run(self) -> Collected:
        with self._layout.folder() as root:
            self._sweep_drafts(root, FORMAT_DRAFT)
        for limits in self._folder("limits"):
            self._sweep_drafts(limits, DRAFT)
        stages = self._marks.stages
        for number, ((flow, run_id), stage) in enumerate(stages.items(), 1):
            self._sweep_run(flow, run_id, stage)
            self._on_progress("runs cleared", number, len(stages))
        for flow in self._layout.flows():
            self._sweep_removed(flow)
        self._sweep_copies()
        self._sweep_aside()
        self._sweep_blobs()
        return self._collected

    def _folder(self, *names: str, make: bool = False) -> Iterator[Folder]:
        """The folder with these names, to be used within a `for`; nothing if it does not exist."""
        try:
            folder = self._layout.folder(*names, make=make and not self._dry_run)
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise StoreError(explain(error.filename, error, doing="read")) from error
            if error.filename not in self._collected.links:
                self._collected.links.append(error.filename)
            return
        with folder:
            yield folder

    # --- runs ---

    def _sweep_drafts(self, folder: Folder, name: re.Pattern[str]) -> None:
        for entry in _entries(folder):
            if name.fullmatch(entry.name):
                self._delete_if_older(folder, entry, self._old, self._collected.leftovers)

    def _sweep_run(self, flow: str, run_id: str, stage: Stage) -> None:
        for folder in self._folder("flows", flow, run_id):
            if stage is Stage.UNBEGUN:
                self._sweep_unbegun(folder, flow, run_id)
            if stage is not Stage.OVER:
                continue
            for entry in _entries(folder):
                if self._marks.needs(flow, run_id, entry.name):
                    continue
                if entry.name in _DRAFTS:  # somebody may be writing it now
                    self._delete_if_older(folder, entry, self._old, self._collected.leftovers)
                elif LEFT_BEHIND.fullmatch(entry.name):
                    self._delete(folder, entry, self._collected.leftovers)
                elif entry.name.endswith(SUFFIX):
                    self._delete(folder, entry, self._collected.segments)

    def _sweep_unbegun(self, folder: Folder, flow: str, run_id: str) -> None:
        """Delete a run that ended before its first event, unless it may be just starting."""
        with suppress(FileNotFoundError):
            if folder.status(".").st_mtime >= self._old:
                return
            if self._dry_run:
                for entry in _entries(folder):
                    self._collected.leftovers.add(entry.stat(follow_symlinks=False).st_size)
                return
            set_aside(self._layout, flow, run_id)
            for removed in self._folder("flows", flow, REMOVED):
                prune(removed, run_id, self._marks, (flow, run_id), self._collected.leftovers)

    def _sweep_removed(self, flow: str) -> None:
        for removed in self._folder("flows", flow, REMOVED):
            for entry in _entries(removed):
                if RUN_ID.fullmatch(entry.name):
                    run = flow, entry.name
                    amount = self._collected.removed
                    prune(removed, entry.name, self._marks, run, amount, dry_run=self._dry_run)
        if not self._dry_run:
            for folder in self._folder("flows", flow):
                with suppress(OSError):  # removed runs leave files in it
                    folder.delete_folder(REMOVED)

    def _sweep_copies(self) -> None:
        """Delete what is left of copies that were never finished, after a day."""
        for copying in self._folder(COPYING):
            for flow in _entries(copying):
                for runs in self._folder(COPYING, flow.name):
                    self._sweep_copied(runs)
                for removed in self._folder(COPYING, flow.name, REMOVED):
                    self._sweep_copied(removed)

    def _sweep_copied(self, runs: Folder) -> None:
        for entry in _entries(runs):
            if not RUN_ID.fullmatch(entry.name) or not entry.is_dir(follow_symlinks=False):
                continue
            with runs.child(entry.name) as folder:
                if not folder.lock(0):
                    continue  # somebody is copying it
                for file in _entries(folder):
                    if file.is_file(follow_symlinks=False):
                        self._delete_if_older(
                            folder, file, self._old_draft, self._collected.leftovers
                        )
                if not self._dry_run:
                    with suppress(OSError):  # it has younger files
                        runs.delete_folder(entry.name)

    # --- blobs ---

    def _sweep_aside(self) -> None:
        """Delete drafts left by a crash, and decide on blobs that a killed collection set aside."""
        for new in self._folder("blobs", "new"):
            for entry in _entries(new):
                digest = entry.name.removeprefix(ASIDE)
                if entry.name.startswith(ASIDE) and _DIGEST_HEX.fullmatch(digest):
                    if not self._dry_run:
                        for shard in self._folder("blobs", digest[:2], make=True):
                            self._decide(new, shard, digest)
                elif _DRAFT.fullmatch(entry.name):
                    self._delete_if_older(new, entry, self._old_draft, self._collected.drafts)

    def _sweep_blobs(self) -> None:
        for blobs in self._folder("blobs"):
            shards = [entry.name for entry in _entries(blobs) if _SHARD.fullmatch(entry.name)]
            for number, shard in enumerate(shards, 1):
                self._sweep_shard(shard)
                self._on_progress("shards of blobs cleared", number, len(shards))

    def _sweep_shard(self, name: str) -> None:
        marked, kept = self._marks.blobs, 0
        for shard in self._folder("blobs", name):
            for new in self._folder("blobs", "new", make=True):
                for entry in _entries(shard):
                    if not _DIGEST_HEX.fullmatch(entry.name) or not entry.name.startswith(name):
                        continue  # not our file
                    if bytes.fromhex(entry.name) in marked:
                        kept += 1
                    else:
                        self._sweep_blob(new, shard, entry)
        self._collected.kept.add(0, kept)

    def _sweep_blob(self, new: Folder, shard: Folder, entry: os.DirEntry[str]) -> None:
        with suppress(FileNotFoundError):
            status = entry.stat(follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                return  # not our file
            if status.st_mtime >= self._young:
                self._collected.spared.add(status.st_size)
            elif self._dry_run:
                self._collected.blobs.add(status.st_size)
            else:
                # Set the blob aside first, and then check again: a task may have put the same value
                # since the first check, which renews the file's time.
                reached("gc.aside")
                shard.rename(entry.name, new, f"{ASIDE}{entry.name}")
                self._decide(new, shard, entry.name)

    def _decide(self, new: Folder, shard: Folder, digest: str) -> None:
        """Delete a blob that was set aside, or put it back."""
        name = f"{ASIDE}{digest}"
        status = new.status(name)
        if bytes.fromhex(digest) in self._marks.blobs or status.st_mtime >= self._young:
            reached("gc.put_back")
            _put_back(new, name, shard, digest)
            self._collected.spared.add(status.st_size)
        else:
            reached("gc.delete")
            new.delete(name)
            self._collected.blobs.add(status.st_size)

    # --- deleting ---

    def _delete_if_older(
        self, folder: Folder, entry: os.DirEntry[str], than: float, amount: Amount
    ) -> None:
        with suppress(FileNotFoundError):
            if entry.stat(follow_symlinks=False).st_mtime < than:
                self._delete(folder, entry, amount)

    def _delete(self, folder: Folder, entry: os.DirEntry[str], amount: Amount) -> None:
        size = entry.stat(follow_symlinks=False).st_size
        if not self._dry_run:
            reached("gc.delete")
            folder.delete(entry.name)
        amount.add(size)


def _put_back(new: Folder, aside: str, shard: Folder, digest: str) -> None:
    """Give a blob its name again, unless another process has put the same bytes there meanwhile."""
    try:
        with suppress(FileExistsError):
            new.link(aside, shard, digest)
    except OSError:
        new.rename(aside, shard, digest)  # a file system without hard links
    else:
        new.delete(aside)


# --- removed runs -------------------------------------------------------------------------------


def set_aside(layout: Layout, flow: str, run_id: str) -> None:
    """Take a run out of the list of runs in one step; its files can still be referred to.

    If a link is in the place of a run, the link itself is taken out.
    """
    with layout.folder("flows", flow) as folder, folder.child(REMOVED, make=True) as removed:
        reached("rm.rename")
        folder.rename(run_id, removed, run_id)
        reached("rm.renamed")
    forget_newest(layout, flow)


def forget_newest(layout: Layout, flow: str) -> None:
    """Have the runs of a flow listed anew, as far as that can be had."""
    with suppress(OSError, StoreError), layout.folder(NEWEST) as newest_ids:
        note_run(flow, 0, newest_ids)


@dataclass(slots=True)
class Left:
    """What is kept of a removed run, by name."""

    needed: list[str] = field(default_factory=list)
    """Files that other runs refer to."""
    strange: list[str] = field(default_factory=list)
    """Files that the store did not create."""


def prune(
    parent: Folder,
    name: str,
    marks: Marks,
    run: tuple[str, str],
    amount: Amount,
    *,
    dry_run: bool = False,
) -> Left:
    """Delete the files of a removed run that nothing refers to; return what stays.

    If a link is in the place of its folder, only the link may be deleted.
    """
    left = Left()
    try:
        folder = parent.child(name)
    except OSError as error:
        if error.errno == errno.ELOOP:
            _prune_link(parent, name, marks, run, left, dry_run=dry_run)
        elif error.errno not in {errno.ENOENT, errno.ENOTDIR}:
            raise
        return left
    with folder:
        # Delete the journal last: while it is there, it says what the other files are.
        for entry in sorted(_entries(folder), key=lambda entry: entry.name == "journal"):
            _prune_file(folder, entry, marks, run, amount, left, dry_run=dry_run)
    if not left.needed and not left.strange and not dry_run:
        with suppress(OSError):  # a file has come into it
            parent.delete_folder(name)
    return left


def _prune_link(
    parent: Folder, name: str, marks: Marks, run: tuple[str, str], left: Left, *, dry_run: bool
) -> None:
    with suppress(OSError), os.scandir(f"{parent.path}/{name}") as behind:  # it may lead nowhere
        left.needed += (entry.name for entry in behind if marks.needs(*run, entry.name))
    if not left.needed and not dry_run:
        reached("rm.delete")
        parent.delete(name)


def _prune_file(
    folder: Folder,
    entry: os.DirEntry[str],
    marks: Marks,
    run: tuple[str, str],
    amount: Amount,
    left: Left,
    *,
    dry_run: bool,
) -> None:
    if marks.needs(*run, entry.name):
        left.needed.append(entry.name)
        return
    with suppress(FileNotFoundError):
        status = entry.stat(follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode) or not _OF_A_RUN.fullmatch(entry.name):
            left.strange.append(entry.name)
            return
        if not dry_run:
            reached("rm.delete")
            folder.delete(entry.name)
        amount.add(status.st_size)


def _entries(folder: Folder) -> list[os.DirEntry[str]]:
    """The contents of a folder.

    Raises:
        StoreError: It cannot be read.
    """
    try:
        return folder.entries()
    except OSError as error:
        raise StoreError(explain(f"the folder {folder.path}", error, doing="read")) from error
