"""Reads everything in a store, and reports what is not as it was written and what that affects.

Checksums cover every byte that matters. Records of the journal and the summary each have their
own. The summary has the checksum of the index. A blob's name is its hash, and a ref has the hash
of its value in a segment. Files that no ref names affect nothing; they are only reported.

Nothing is unpickled, so no code of a user runs, and nothing is changed. Files are read, not mapped:
a disk that can no longer read a file then raises an error, and does not kill the process.

This module walks over the store. `run_checker` checks a run, `value_checker` the values, and
`findings` collects the results.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from asyncflow.errors import LimitError, StoreError
from asyncflow.store.files import open_file, read_file
from asyncflow.store.journal import is_being_written
from asyncflow.store.layout import COPYING, FORMAT, FORMAT_DRAFT
from asyncflow.store.limit_files import DRAFT, FILE_BYTES, unpack_bounds
from asyncflow.store.mailbox import MAILBOX
from asyncflow.store.maintenance.findings import Findings
from asyncflow.store.maintenance.run_checker import RunChecker
from asyncflow.store.maintenance.value_checker import ValueChecker
from asyncflow.store.run_ids import REMOVED
from asyncflow.store.run_tags import TAGS
from asyncflow.store.run_times import TIMES
from asyncflow.store.segments import SUFFIX

if TYPE_CHECKING:
    from collections.abc import Callable, Container

    from asyncflow.store.layout import Layout, Listing
    from asyncflow.store.maintenance.findings import Verified

_DIGEST_HEX: Final = re.compile(r"[0-9a-f]{64}")
_OF_A_FOLDER: Final = 4  # parts of the path of a run's folder, at most: flows/F/.removed/1
_OF_A_RUN: Final = frozenset({"journal", "summary", "index", TIMES, TAGS, MAILBOX})


def verify(
    layout: Layout,
    flow: str | None = None,
    run_id: str | None = None,
    *,
    on_progress: Callable[[Verified], None] = lambda _: None,
) -> Verified:
    """Verify a run, or all of a flow, or the whole store.

    Runs may go on meanwhile. `on_progress` is called from time to time with the findings so far.
    """
    open_file.cache_clear()  # a file that was opened before may have been deleted or replaced
    findings = Findings(layout.root, on_progress)
    walk = _Walk(layout, findings)
    for name in walk.flows() if flow is None else [flow]:
        walk.check_flow(name, run_id)
    if flow is None:
        walk.check_rest()
    return findings.verified


class _Walk:
    """One walk over a store, which finds each run and file and has it checked."""

    def __init__(self, layout: Layout, findings: Findings) -> None:
        self._layout, self._findings = layout, findings
        self._values = ValueChecker(layout, findings)

    # --- runs ---

    def flows(self) -> list[str]:
        """The names of all flows that can be found."""
        try:
            return self._found(self._layout.list_flows(), "the store")
        except StoreError as error:
            self._findings.damage(self._layout.root / "flows", str(error), "the store")
            return []

    def _found(self, listing: Listing, owner: str) -> list[str]:
        for stray in listing.strays:
            self._findings.damage(stray.path, stray.what, owner)
        return listing.names

    def check_flow(self, flow: str, run_id: str | None) -> None:
        """Check one run of a flow, or everything in its folder."""
        self._findings.note_link(self._layout.flow_dir(flow))
        if run_id is not None:
            self.check_run(flow, run_id)
            return
        try:
            for each in self._found(self._layout.list_runs(flow), flow):
                self.check_run(flow, each)
            self.check_rest_of_flow(flow)
        except StoreError as error:
            self._findings.damage(self._layout.flow_dir(flow), str(error), flow)

    def check_run(self, flow: str, run_id: str) -> None:
        folder = self._layout.run_dir(flow, run_id)
        self._findings.note_link(folder)
        before = len(self._findings.verified.damage)
        self._check_run_in(folder, f"{flow}/{run_id}", flow)
        if not folder.exists():  # somebody has removed the run meanwhile
            del self._findings.verified.damage[before:]
        self._findings.verified.runs += 1
        self._findings.show_progress()

    def _check_run_in(
        self, folder: Path, pathspec: str, flow: str, *, removed: bool = False
    ) -> None:
        checker = RunChecker(
            self._findings, self._values, folder, pathspec, flow=flow, removed=removed
        )
        checker.check()

    def check_rest_of_flow(self, flow: str) -> None:
        """Check what removed runs have left, and look for stray files in the folders of runs."""
        self._findings.note_link(self._layout.removed_dir(flow))
        for run_id in self._layout.removed_runs(flow):
            folder = self._layout.removed_dir(flow, run_id)
            self._findings.note_link(folder)
            pathspec = f"{flow}/{run_id} (removed)"
            self._check_run_in(folder, pathspec, flow, removed=True)
            self._check_folder(folder, flow, run_id)
        for run_id in self._layout.runs(flow):
            folder = self._layout.run_dir(flow, run_id)
            if not is_being_written(folder / "journal"):
                self._check_folder(folder, flow, run_id)

    def _check_folder(self, folder: Path, flow: str, run_id: str) -> None:
        try:
            paths = _entries(folder, known=_OF_A_RUN)
        except OSError:
            return  # reported already: its journal cannot be read either
        for path in paths:
            segment = f"{flow}/{run_id}/{path.name}"
            if path.name.endswith(SUFFIX) and self._values.is_named_segment(segment):
                continue
            self._findings.unreferenced(path, "unreferenced: it belongs to no artifact")

    # --- the rest of the store ---

    def check_rest(self) -> None:
        """Check files that belong to no flow."""
        self._check_root()
        self._check_limits()
        self._check_copies()
        before = self._findings.verified.unreferenced.files
        drafts = 0
        for folder in (self._layout.root / "flows", self._layout.blobs, self._layout.limits):
            self._findings.note_link(folder)
        for shard in self._entries(self._layout.blobs, are_folders=True):
            self._findings.note_link(shard)
            for path in self._entries(shard):
                if shard.name == "new":
                    drafts += 1
                    self._findings.unreferenced(path)
                else:
                    self._check_stray_blob(path)
        if count := self._findings.verified.unreferenced.files - before - drafts:
            blobs = "1 blob is" if count == 1 else f"{count:,} blobs are"
            self._findings.note(self._layout.blobs, f"{blobs} {self._unreferenced_blobs()}")
        if drafts:
            self._findings.note(
                self._layout.blobs / "new", f"{drafts:,} unfinished blobs, or being written"
            )

    def _check_copies(self) -> None:
        copying = self._layout.root / COPYING
        self._findings.note_link(copying)
        files = 0
        for flow in self._entries(copying, are_folders=True):
            for runs in (flow, flow / REMOVED):
                for run in self._entries(runs, are_folders=True):
                    for path in self._entries(run):
                        files += 1
                        self._findings.unreferenced(path)
        if files:
            what = "of runs that are being copied, or whose copy was not finished"
            self._findings.note(copying, f"{files:,} files {what}: copy them again")

    def _check_root(self) -> None:
        root = self._layout.root
        for path in self._entries(root):
            if FORMAT_DRAFT.fullmatch(path.name):
                self._findings.unreferenced(
                    path, "unfinished; after an hour asyncflow gc deletes it"
                )
            elif path.name != "format":
                self._findings.unreferenced(path, "unreferenced: the store did not create it")
        try:
            if read_file(root / "format", most=100) != f"{FORMAT}\n".encode():
                self._findings.damage(root / "format", f"it does not say {FORMAT}", "the store")
        except OSError as error:
            self._findings.damage(
                root / "format", f"it cannot be read: {error.strerror}", "the store"
            )

    def _entries(self, folder: Path, *, are_folders: bool = False) -> list[Path]:
        """The contents of a folder. If it cannot be read, that is reported as damage."""
        try:
            return _entries(folder, are_folders=are_folders)
        except OSError as error:
            self._findings.damage(folder, f"it cannot be read: {error.strerror}", "the store")
            return []

    def _unreferenced_blobs(self) -> str:
        """What to do about unreferenced blobs. If refs cannot be read, a blob may only seem so."""
        for damage in self._findings.verified.damage:
            parts = Path(damage.file).parts
            if parts[-1] == "journal" or (parts[0] == "flows" and len(parts) <= _OF_A_FOLDER):
                return "referred to by nothing that can be read: mend the damage, then asyncflow gc"
        return "unreferenced: asyncflow gc"

    def _check_limits(self) -> None:
        for path in self._entries(self._layout.limits):
            if DRAFT.fullmatch(path.name):
                self._findings.unreferenced(path)
                continue
            try:
                data = read_file(path, most=FILE_BYTES)
                self._findings.verified.size += len(data)
                unpack_bounds(data, path)
            except OSError as error:
                self._findings.damage(
                    path, f"it cannot be read: {error.strerror}", f"limit {path.name}"
                )
            except LimitError as error:
                self._findings.damage(path, str(error), f"limit {path.name}")

    def _check_stray_blob(self, path: Path) -> None:
        """Check a blob, unless a ref has named it."""
        name = path.name
        if not _DIGEST_HEX.fullmatch(name) or name[:2] != path.parent.name:
            self._findings.unreferenced(path, "unreferenced: it is not a blob")
            return
        digest = bytes.fromhex(name)
        if not self._values.is_named_blob(digest):
            self._findings.unreferenced(path)
            self._values.check_unnamed_blob(path, digest)


def _entries(folder: Path, *, are_folders: bool = False, known: Container[str] = ()) -> list[Path]:
    """The folders in a folder, or everything else in it; empty if there is no such folder.

    Entries with `known` names are left out.

    Raises:
        OSError: It cannot be read.
    """
    try:
        with os.scandir(folder) as entries:
            return [
                Path(entry.path)
                for entry in entries
                if entry.name not in known and _is_folder(entry) == are_folders
            ]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself, or to a place without access
        return False
