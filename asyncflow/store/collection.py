"""The garbage collection: what no journal refers to, and what crashes have left, is deleted.

Marks, then sweeps, beside whatever runs. What it must not take is what was put and is not announced
yet. A blob that is put has a time of modification of at most `TOUCH_SECONDS` before, so those are
spared that are no older than that and a grace, and no older than that at the start of the oldest
running run: however long a task takes between putting a value and telling of it, its run is older.

A crash at any moment leaves a store that is as whole as before, and the next collection goes on.
"""

from __future__ import annotations

import os
import re
import stat
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

from asyncflow.commit_points import reached
from asyncflow.errors import StoreError
from asyncflow.store.blobs import TOUCH_SECONDS
from asyncflow.store.files import explain
from asyncflow.store.layout import ASIDE, FORMAT_DRAFT
from asyncflow.store.limits import DRAFT
from asyncflow.store.marking import Marks, Stage, exclusive
from asyncflow.store.segments import SUFFIX

if TYPE_CHECKING:
    from pathlib import Path

    from asyncflow.store.layout import Layout

GRACE_SECONDS: Final = 3600
"""How long a run may take from its folder to its first event, and clocks of machines differ."""

DRAFT_SECONDS: Final = 86_400
"""A blob that is being written is written to at least once a day."""

_DIGEST_HEX: Final = re.compile(r"[0-9a-f]{64}")
_DRAFT: Final = re.compile(r"[0-9a-f]{24}")
_LEFT_BEHIND: Final = re.compile(r"inputs-\d+|\.index|\.summary")
"""Files of a run that nobody reads once it is over."""


@dataclass(slots=True)
class Amount:
    """So many files, and their bytes."""

    files: int = 0
    size: int = 0

    def add(self, size: int, files: int = 1) -> None:
        """Count some more."""
        self.files += files
        self.size += size


@dataclass(frozen=True, slots=True)
class Collected:
    """What a collection has deleted, or would have."""

    dry_run: bool
    blobs: Amount = field(default_factory=Amount)
    """Blobs that no journal refers to."""
    drafts: Amount = field(default_factory=Amount)
    """Blobs that were never finished."""
    segments: Amount = field(default_factory=Amount)
    """Segments that no journal refers to."""
    leftovers: Amount = field(default_factory=Amount)
    """Temporary files of runs that are over, and folders of runs that never began."""
    removed: Amount = field(default_factory=Amount)
    """Files of removed runs that nobody refers to any more."""
    spared: Amount = field(default_factory=Amount)
    """Blobs that no journal refers to and that are too young to be deleted."""
    kept: Amount = field(default_factory=Amount)
    """Blobs that journals refer to; their bytes are not counted."""

    @property
    def total(self) -> Amount:
        """All that was deleted."""
        parts = (self.blobs, self.drafts, self.segments, self.leftovers, self.removed)
        return Amount(sum(part.files for part in parts), sum(part.size for part in parts))

    def to_data(self) -> dict[str, Any]:
        """As plain data, for JSON."""
        data = asdict(self)
        del data["kept"]["size"]
        return {**data, "total": asdict(self.total)}


def collect(layout: Layout, *, dry_run: bool = False) -> Collected:
    """Delete what nobody needs, or with `dry_run` count it.

    Cancelled or killed: what is deleted is deleted, and nothing that anybody needs.

    Raises:
        JournalError: A journal is damaged, so what it needs cannot be told; nothing was deleted.
        StoreError: A file cannot be deleted, or the store has no file locks.
    """
    with exclusive(layout):
        now = time.time()
        marks = Marks(layout)
        marks.read_all()
        sweep = _Sweep(layout, marks, now, dry_run=dry_run)
        try:
            return sweep.run()
        except OSError as error:
            raise StoreError(explain(error.filename, error, doing="delete")) from error


class _Sweep:
    """The second half of a collection."""

    def __init__(self, layout: Layout, marks: Marks, now: float, *, dry_run: bool) -> None:
        self._layout, self._marks, self._dry_run = layout, marks, dry_run
        self._old = now - GRACE_SECONDS
        self._old_draft = now - DRAFT_SECONDS
        since = now - GRACE_SECONDS
        if marks.running_since is not None:
            since = min(since, marks.running_since / 1e6)
        self._young = since - TOUCH_SECONDS
        self._collected = Collected(dry_run)

    def run(self) -> Collected:
        self._sweep_root()
        for (flow, run_id), stage in self._marks.stages.items():
            self._sweep_run(self._layout.run_dir(flow, run_id), flow, run_id, stage)
        for flow in self._layout.flows():
            for run_id in self._layout.removed_runs(flow):
                folder = self._layout.removed_dir(flow, run_id)
                amount = self._collected.removed
                prune(folder, self._marks, (flow, run_id), amount, dry_run=self._dry_run)
        self._sweep_aside()
        self._sweep_blobs()
        return self._collected

    # --- runs ---

    def _sweep_root(self) -> None:
        for entry in _entries(self._layout.root):
            if FORMAT_DRAFT.fullmatch(entry.name):
                self._delete_if_older(entry, self._old, self._collected.leftovers)
        for entry in _entries(self._layout.limits):
            if DRAFT.fullmatch(entry.name):
                self._delete_if_older(entry, self._old, self._collected.leftovers)

    def _sweep_run(self, folder: Path, flow: str, run_id: str, stage: Stage) -> None:
        if stage is Stage.UNBEGUN:
            self._sweep_unbegun(folder, flow, run_id)
        if stage is not Stage.OVER:
            return
        for entry in _entries(folder):
            if self._marks.needs(flow, run_id, entry.name):
                continue
            if _LEFT_BEHIND.fullmatch(entry.name):
                self._delete(entry.path, entry.stat().st_size, self._collected.leftovers)
            elif entry.name.endswith(SUFFIX):
                self._delete(entry.path, entry.stat().st_size, self._collected.segments)

    def _sweep_unbegun(self, folder: Path, flow: str, run_id: str) -> None:
        """A run that came to nothing before its first event; or it is just starting."""
        with suppress(FileNotFoundError):
            if folder.stat().st_mtime >= self._old:
                return
            if self._dry_run:
                _count(folder, self._collected.leftovers)
                return
            set_aside(self._layout, flow, run_id)
            folder = self._layout.removed_dir(flow, run_id)
            prune(folder, self._marks, (flow, run_id), self._collected.leftovers)

    # --- blobs ---

    def _sweep_aside(self) -> None:
        """Drafts that a crash has left, and what a collection before this one was about to do."""
        for entry in _entries(self._layout.blobs / "new"):
            digest = entry.name.removeprefix(ASIDE)
            if entry.name.startswith(ASIDE) and _DIGEST_HEX.fullmatch(digest):
                if not self._dry_run:
                    self._decide(entry.path, bytes.fromhex(digest))
            elif _DRAFT.fullmatch(entry.name):
                self._delete_if_older(entry, self._old_draft, self._collected.drafts)

    def _sweep_blobs(self) -> None:
        marked, kept = self._marks.blobs, 0
        if not self._dry_run and self._layout.blobs.is_dir():
            self._layout.make_parent(self._layout.new_blob())
        for shard in _entries(self._layout.blobs):
            if len(shard.name) != 2:  # noqa: PLR2004 - a byte in hex
                continue
            for entry in _entries(shard.path):
                if not _DIGEST_HEX.fullmatch(entry.name):
                    continue  # not ours
                digest = bytes.fromhex(entry.name)
                if digest in marked:
                    kept += 1
                else:
                    self._sweep_blob(entry, digest)
        self._collected.kept.add(0, kept)

    def _sweep_blob(self, entry: os.DirEntry[str], digest: bytes) -> None:
        with suppress(FileNotFoundError):
            status = entry.stat(follow_symlinks=False)
            if status.st_mtime >= self._young:
                self._collected.spared.add(status.st_size)
            elif self._dry_run:
                self._collected.blobs.add(status.st_size)
            else:
                # Out of everybody's reach first, and then a second look: a task may have put this
                # very value between the first look and now, and have made the file young.
                aside = self._layout.blob_aside(digest)
                reached("gc.aside")
                os.rename(entry.path, aside)  # noqa: PTH104 - text, a hundred thousand times
                self._decide(aside, digest)

    def _decide(self, aside: str, digest: bytes) -> None:
        """Delete a blob that was set aside, or put it back."""
        status = os.stat(aside)  # noqa: PTH116 - as above
        if digest in self._marks.blobs or status.st_mtime >= self._young:
            reached("gc.put_back")
            _put_back(aside, self._layout.blob(digest))
            self._collected.spared.add(status.st_size)
        else:
            self._delete(aside, status.st_size, self._collected.blobs)

    # --- deleting ---

    def _delete_if_older(self, entry: os.DirEntry[str], than: float, amount: Amount) -> None:
        with suppress(FileNotFoundError):
            status = entry.stat(follow_symlinks=False)
            if status.st_mtime < than:
                self._delete(entry.path, status.st_size, amount)

    def _delete(self, path: str, size: int, amount: Amount) -> None:
        if not self._dry_run:
            reached("gc.delete")
            os.unlink(path)  # noqa: PTH108 - as above
        amount.add(size)


def _put_back(aside: str, path: str) -> None:
    """Give a blob its name again, unless somebody has put the same bytes there meanwhile."""
    try:
        with suppress(FileExistsError):
            os.link(aside, path)
    except OSError:
        os.rename(aside, path)  # noqa: PTH104 - a file system without hard links
    else:
        os.unlink(aside)  # noqa: PTH108 - text, as all of these


# --- removed runs -------------------------------------------------------------------------------


def set_aside(layout: Layout, flow: str, run_id: str) -> None:
    """Take a run out of the list of runs, all at once; its files can still be referred to."""
    removed = layout.removed_dir(flow)
    with suppress(FileExistsError):
        removed.mkdir(0o700)
    reached("rm.rename")
    layout.run_dir(flow, run_id).rename(removed / run_id)
    reached("rm.renamed")


def prune(
    folder: Path, marks: Marks, run: tuple[str, str], amount: Amount, *, dry_run: bool = False
) -> list[str]:
    """Delete the files of a removed run that nobody refers to; the names of those that stay."""
    kept = []
    # The journal last: while it is there, everything else can be told what it is.
    for entry in sorted(_entries(folder), key=lambda entry: entry.name == "journal"):
        if marks.needs(*run, entry.name):
            kept.append(entry.name)
        else:
            _prune_file(entry, amount, dry_run=dry_run)
    if not kept and not dry_run:
        with suppress(OSError):  # something of somebody else's is in it
            folder.rmdir()
            folder.parent.rmdir()
    return kept


def _prune_file(entry: os.DirEntry[str], amount: Amount, *, dry_run: bool) -> None:
    with suppress(FileNotFoundError):
        status = entry.stat(follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            return
        if not dry_run:
            reached("rm.delete")
            os.unlink(entry.path)  # noqa: PTH108 - an entry has text
        amount.add(status.st_size)


def _count(folder: Path, amount: Amount) -> None:
    for entry in _entries(folder):
        amount.add(entry.stat(follow_symlinks=False).st_size)


def _entries(folder: Path | str) -> list[os.DirEntry[str]]:
    """What is in a folder; nothing where there is none.

    Raises:
        StoreError: It cannot be read.
    """
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise StoreError(explain(f"the folder {folder}", error, doing="read")) from error
