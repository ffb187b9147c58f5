"""The garbage collection of an object store; what it promises is that of `collect`.

It marks, then sweeps, by the store's own clock: `LastModified`. A blob is spared if it was written
less than `TOUCH_SECONDS` and a grace before now, and before the start of the oldest run that may
still change; whoever puts a blob again that is older than `TOUCH_SECONDS` writes it again.

An object cannot be renamed. So a blob is copied to `gone/`, then deleted, then the journals are
read again that may have grown: what one of them names by now is copied back. Readers look in
`gone/` second. A day later the copy is deleted. A crash at any moment leaves a store as whole as
before, and the next collection goes on.
"""

from __future__ import annotations

import re
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from asyncflow._support.commit_points import reached
from asyncflow.errors import StoreError
from asyncflow.store.blobs import TOUCH_SECONDS
from asyncflow.store.files import explain
from asyncflow.store.maintenance.collect import DRAFT_SECONDS, Collected
from asyncflow.store.maintenance.object_marks import GRACE_SECONDS, ObjectMarks, collecting
from asyncflow.store.maintenance.reachable import ProgressListener, Stage, ignore_progress
from asyncflow.store.object_store.claim import CLAIM
from asyncflow.store.object_store.limit_state import LIMITS, is_limit
from asyncflow.store.object_store.value_source import aside_name, blob_name
from asyncflow.store.run_ids import REMOVED, RUN_ID
from asyncflow.store.segments import SUFFIX

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncflow.store.maintenance.collect import Amount
    from asyncflow.store.maintenance.object_marks import Collector
    from asyncflow.store.object_store.object_store import ObjectStore
    from asyncflow.store.object_store.objects import ObjectFacts

_DIGEST_HEX: Final = re.compile(r"[0-9a-f]{64}")
_DELETED_TOGETHER: Final = 1000
_GONE: Final = "gone"


def collect_objects(
    store: ObjectStore,
    *,
    dry_run: bool = False,
    on_wait: Callable[[str], None] = lambda _: None,
    on_progress: ProgressListener = ignore_progress,
) -> Collected:
    """Delete objects that nobody needs, or with `dry_run` count them.

    `on_progress` hears how many runs are read, and of how many.

    Raises:
        JournalError: A journal is damaged, so what it needs is unknown; nothing was deleted.
        StoreError: The store refuses, or does not answer.
    """
    try:
        with collecting(store, on_wait) as collector:
            marks = ObjectMarks(store, changes_nothing=dry_run)
            marks.read_all(on_progress)
            return _ObjectSweep(store, marks, collector, dry_run=dry_run).run()
    except OSError as error:
        raise StoreError(explain(error.filename, error, doing="collect in")) from error


class _ObjectSweep:
    """The second half of a collection."""

    def __init__(
        self, store: ObjectStore, marks: ObjectMarks, collector: Collector, *, dry_run: bool
    ) -> None:
        self._store, self._objects, self._marks = store, store.objects, marks
        self._collector, self._dry_run = collector, dry_run
        now = time.time()
        self._old = since = now - GRACE_SECONDS
        if marks.running_since is not None:
            since = min(since, marks.running_since / 1e6)
        self._young = since - TOUCH_SECONDS
        # A task of a run that goes on may have put the value in the moment in which it was deleted.
        self._old_copy = min(now - DRAFT_SECONDS, since)
        self._collected = Collected(dry_run)
        self._waiting: list[str] = []  # to be deleted together

    def run(self) -> Collected:
        for (flow, run_id), stage in self._marks.stages.items():
            self._sweep_run(flow, run_id, stage)
        for flow in self._store.flows():
            self._sweep_removed(flow)
        self._sweep_gone()
        self._sweep_blobs()
        for facts in self._objects.listed("blobs/new"):  # drafts of copies
            self._delete_if_older(facts, self._old, self._collected.drafts)
        for facts in self._objects.listed("probe"):
            self._delete_if_older(facts, self._old, self._collected.leftovers)
        for facts in self._objects.listed(LIMITS):  # notes of versions that did not share limits
            if not is_limit(facts.name):
                self._delete_if_older(facts, self._old, self._collected.leftovers)
        self._flush()
        return self._collected

    # --- runs -----------------------------------------------------------------------------------

    def _sweep_run(self, flow: str, run_id: str, stage: Stage) -> None:
        if stage is Stage.RUNNING:
            return
        folder = self._store.run(flow, run_id).folder
        found = [*self._objects.listed(folder)]
        if stage is Stage.UNBEGUN:  # it may be just starting, or being copied
            if max((facts.modified for facts in found), default=0) < self._old:
                for facts in found:
                    self._delete(facts, self._collected.leftovers)
            return
        for facts in found:
            name = facts.name[len(folder) + 1 :].partition("/")[0]
            if name == CLAIM:
                self._delete_if_older(facts, self._old, self._collected.leftovers)
            elif name.endswith(SUFFIX) and not self._marks.needs(flow, run_id, name):
                self._delete_if_older(facts, self._old, self._collected.segments)

    def _sweep_removed(self, flow: str) -> None:
        folder = f"flows/{flow}/{REMOVED}"
        for facts in self._objects.listed(folder):
            run_id, _, rest = facts.name[len(folder) + 1 :].partition("/")
            name = rest.partition("/")[0]
            if RUN_ID.fullmatch(run_id) and not self._marks.needs(flow, run_id, name):
                self._delete_if_older(facts, self._old, self._collected.removed)

    # --- blobs ----------------------------------------------------------------------------------

    def _sweep_gone(self) -> None:
        """Delete copies of blobs that nobody has missed for a day."""
        for facts in self._objects.listed(_GONE):
            digest = facts.name.rpartition("/")[2]
            if not _DIGEST_HEX.fullmatch(digest):
                continue
            if bytes.fromhex(digest) in self._marks.blobs:
                self._put_back(digest)
            else:
                self._delete_if_older(facts, self._old_copy, self._collected.drafts)

    def _sweep_blobs(self) -> None:
        kept, aside = 0, []
        for facts in self._objects.listed("blobs"):
            _, _, digest = facts.name.rpartition("/")
            if not _DIGEST_HEX.fullmatch(digest) or facts.name != f"blobs/{digest[:2]}/{digest}":
                continue  # not our object
            if bytes.fromhex(digest) in self._marks.blobs:
                kept += 1
            elif facts.modified >= self._young:
                self._collected.spared.add(facts.size)
            else:
                self._set_aside(facts, digest)
                aside.append(facts)
        self._flush()
        self._collected.kept.add(0, kept)
        if aside and not self._dry_run:
            self._look_again(aside)

    def _set_aside(self, facts: ObjectFacts, digest: str) -> None:
        if not self._dry_run:
            reached("gone.copy")
            try:
                self._objects.copy(facts.name, f"{_GONE}/{digest}")
            except FileNotFoundError:
                return
            reached("gone.copied")
        self._delete(facts, self._collected.blobs)

    def _look_again(self, aside: list[ObjectFacts]) -> None:
        """Put back what a journal names that has grown or begun since it was read."""
        for flow in self._store.flows():
            self._marks.read_changes(flow)
            self._collector.beat()
        for facts in aside:
            digest = facts.name.rpartition("/")[2]
            if bytes.fromhex(digest) in self._marks.blobs:
                self._put_back(digest)
                self._collected.blobs.add(-facts.size, -1)
                self._collected.spared.add(facts.size)

    def _put_back(self, digest: str) -> None:
        if self._dry_run:
            return
        reached("gone.put_back")
        name = bytes.fromhex(digest)
        with suppress(FileNotFoundError):
            if not self._objects.exists(blob_name(name)):
                self._objects.copy(aside_name(name), blob_name(name))
        reached("gone.back")

    # --- deleting -------------------------------------------------------------------------------

    def _delete_if_older(self, facts: ObjectFacts, than: float, amount: Amount) -> None:
        if facts.modified < than:
            self._delete(facts, amount)

    def _delete(self, facts: ObjectFacts, amount: Amount) -> None:
        amount.add(facts.size)
        if self._dry_run:
            return
        self._waiting.append(facts.name)
        if len(self._waiting) >= _DELETED_TOGETHER:
            self._flush()

    def _flush(self) -> None:
        self._collector.beat()
        waiting, self._waiting = self._waiting, []
        if waiting:
            reached("gone.delete")
            self._objects.delete(waiting)
