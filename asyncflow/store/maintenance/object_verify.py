"""Reads everything in an object store, and reports what is not as it was written.

It asks the store itself, not the cache of this machine. Nothing is unpickled or changed.
"""

from __future__ import annotations

import errno
import re
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Final
from zlib import crc32

from blake3 import blake3

from asyncflow.errors import JournalError, LimitError, RecordError, StoreError
from asyncflow.events.records import (
    CLONED,
    KNOWN,
    REFERRING,
    SUCCEEDED,
    code_of,
    fields_of,
    manifest_in,
    references_of,
)
from asyncflow.store.files import reason_of
from asyncflow.store.journal import FIRST_RECORD
from asyncflow.store.maintenance.findings import Findings
from asyncflow.store.manifests import JournalManifests
from asyncflow.store.object_store.limit_state import LIMITS, MOST_BYTES, is_limit, unpack
from asyncflow.store.object_store.piece_file import PieceFile
from asyncflow.store.object_store.sent_journal import JOURNAL, PieceJournal
from asyncflow.store.object_store.value_source import aside_name, blob_name
from asyncflow.store.run_ids import REMOVED, RUN_ID
from asyncflow.store.run_index import SUMMARY, Summary
from asyncflow.store.run_tags import TAGS, changed_tags
from asyncflow.store.run_times import TIMES, AttemptTable
from asyncflow.store.task_table import INDEX
from asyncflow.values import Place

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncflow.store.maintenance.findings import Damage, Verified
    from asyncflow.store.object_store.object_run import ObjectRun
    from asyncflow.store.object_store.object_store import ObjectStore
    from asyncflow.values import ArtifactRef

_SEGMENT, _BLOB = int(Place.SEGMENT), int(Place.BLOB)
_DIGEST_HEX: Final = re.compile(r"[0-9a-f]{64}")
_OPEN_FILES: Final = 8  # each keeps some MiB
_MOST_INDEX_BYTES: Final = 16 << 30
_KEPT_VALUES: Final = 1_000_000  # that were verified; some 100 bytes each
_AFFECTED: Final = 20


def verify_objects(
    store: ObjectStore,
    flow: str | None = None,
    run_id: str | None = None,
    *,
    on_progress: Callable[[Verified], None] = lambda _: None,
) -> Verified:
    """Verify a run, or all of a flow, or the whole store; runs may go on meanwhile."""
    walk = _ObjectWalk(store, Findings(Path(), on_progress))
    for name in store.flows() if flow is None else [flow]:
        walk.check_flow(name, run_id)
    walk.check_blobs(all_of_them=flow is None)
    if flow is None:
        walk.check_limits()
    return walk.findings.verified


class _ObjectWalk:
    """One walk over an object store."""

    def __init__(self, store: ObjectStore, findings: Findings) -> None:
        self._store, self._objects, self.findings = store, store.objects, findings
        self._blobs: dict[bytes, tuple[int, list[str]]] = {}  # size, and who needs it
        self._values: set[tuple[str, int]] = set()
        self._segments: dict[tuple[str, str], Damage] = {}
        self._files: OrderedDict[str, PieceFile] = OrderedDict()

    def check_flow(self, flow: str, run_id: str | None) -> None:
        """Check one run of a flow, or all of them and what is left of removed ones."""
        runs = self._store.runs(flow) if run_id is None else [run_id]
        for each in runs:
            self._check_run(self._store.run(flow, each), f"{flow}/{each}")
        if run_id is None:
            folder = f"flows/{flow}/{REMOVED}"
            for each in self._objects.folders(folder):
                if RUN_ID.fullmatch(each):
                    run = self._store.run(flow, each, removed=True)
                    self._check_run(run, f"{flow}/{each} (removed)", removed=True)

    def _check_run(self, run: ObjectRun, pathspec: str, *, removed: bool = False) -> None:
        summary = self._check_small_files(run, pathspec)
        place = Path(run.folder, JOURNAL)
        file = PieceFile(self._objects, f"{run.folder}/{JOURNAL}")
        try:
            file.refresh(now=True)
            journal = PieceJournal(file, run.journal_place)
            end = self._check_records(run, pathspec, journal)
            if summary is not None and end < summary.journal_bytes:
                what = f"it ends at byte {end}, and was longer"
                self.findings.damage(place, what, pathspec)
            elif end < journal.size() and not journal.is_torn(end):
                what = f"the record at byte {end} is not what was written"
                self.findings.damage(place, what, pathspec)
        except FileNotFoundError:
            if summary is not None:
                self.findings.damage(place, "it is gone", pathspec)
            elif not removed:
                self.findings.note(Path(run.folder), "it has not begun, or was being copied")
        except (JournalError, OSError) as error:
            self.findings.damage(place, _reason(error), pathspec)
        self.findings.verified.runs += 1
        self.findings.show_progress()

    def _check_records(self, run: ObjectRun, pathspec: str, journal: PieceJournal) -> int:
        end = FIRST_RECORD
        manifests = JournalManifests(journal.read_one, run.journal_file)
        for at, record, end in journal.read_from(FIRST_RECORD):
            self.findings.verified.size += end - at
            code = code_of(record)
            if code not in KNOWN:
                what = "a later version of asyncflow wrote it; not verified from there on"
                self.findings.note(Path(run.folder, JOURNAL), f"the record at byte {at}: {what}")
                return journal.size()
            if code in REFERRING:
                self.findings.verified.tasks += code in {CLONED, SUCCEEDED}
                values = fields_of(record)
                manifests.check(at, record, manifest_in(values))
                for name, ref in references_of(values):
                    self._check_ref(run.flow, ref, f"{pathspec}: {name}")
        return end

    def _check_small_files(self, run: ObjectRun, pathspec: str) -> Summary | None:
        try:
            changed_tags(run)
        except (StoreError, OSError) as error:
            self.findings.damage(Path(run.folder, TAGS), _reason(error), pathspec)
        try:
            summary = Summary.read(run)
        except (RecordError, OSError) as error:
            self.findings.damage(Path(run.folder, SUMMARY), _reason(error), pathspec)
            return None
        if summary is not None:
            try:
                index = run.read_file(INDEX, most=_MOST_INDEX_BYTES)
                self.findings.verified.size += len(index)
                what = "" if crc32(index) == summary.index_checksum else "its checksum is another"
            except OSError as error:
                what = reason_of(error)
            if what:
                advice = f"{what}; delete {SUMMARY}, and the journal is read instead"
                self.findings.damage(Path(run.folder, INDEX), advice, pathspec)
            try:
                AttemptTable.read(run, summary.journal_bytes, len(summary.steps))
            except (RecordError, OSError) as error:
                advice = f"{_reason(error)}; delete it, and the journal is read instead"
                self.findings.damage(Path(run.folder, TIMES), advice, pathspec)
        return summary

    # --- values ---------------------------------------------------------------------------------

    def _check_ref(self, flow: str, ref: ArtifactRef, who: str) -> None:
        if ref.place == _BLOB:
            _, needed_by = self._blobs.setdefault(ref.digest, (ref.size, []))
            if len(needed_by) < _AFFECTED:
                needed_by.append(who)
            return
        key = f"flows/{flow}/{ref.file}", ref.offset
        if ref.place != _SEGMENT or key in self._values:
            return
        if len(self._values) >= _KEPT_VALUES:
            self._values.clear()
        self._values.add(key)
        self.findings.verified.values += 1
        what = ""
        try:
            data = self._read(flow, ref)
            self.findings.verified.size += len(data)
            if len(data) != ref.size:
                what = f"it ends before byte {ref.offset + ref.size}"
            elif blake3(data).digest() != ref.digest:
                what = f"the value from byte {ref.offset} on, {ref.size} bytes, has another hash"
        except FileNotFoundError:
            what = "it is gone"
        except (JournalError, OSError) as error:
            what = _reason(error)
        if what:
            self._damage(key[0], what, who)
        self.findings.show_progress()

    def _damage(self, file: str, what: str, who: str) -> None:
        """Report damage of a segment once, whatever number of values it affects."""
        damage = self._segments.get((file, what))
        if damage is None:
            self._segments[file, what] = self.findings.damage(Path(file), what, who)
        else:
            damage.add(who)

    def _read(self, flow: str, ref: ArtifactRef) -> bytes:
        for folder in (f"flows/{flow}/{ref.file}", f"flows/{flow}/{REMOVED}/{ref.file}"):
            file = self._file(folder)
            if file.size < ref.offset + ref.size:
                file.refresh(now=True)
            if file.size:
                return file.read(ref.size, ref.offset)
        raise FileNotFoundError(errno.ENOENT, "it is gone", ref.file)

    def _file(self, folder: str) -> PieceFile:
        file = self._files.get(folder)
        if file is None:
            file = self._files[folder] = PieceFile(self._objects, folder)
            if len(self._files) > _OPEN_FILES:
                self._files.popitem(last=False)
        self._files.move_to_end(folder)
        return file

    def check_blobs(self, *, all_of_them: bool) -> None:
        """Check the blobs that runs need, and with `all_of_them` the others as well."""
        for digest, (size, needed_by) in self._blobs.items():
            what = self._hash(blob_name(digest), digest, size)
            if what is None:  # a collection has it aside, or has just put it back
                what = self._hash(aside_name(digest), digest, size)
            if what is None:
                what = self._hash(blob_name(digest), digest, size)
            if what != "":
                self.findings.damage(Path(blob_name(digest)), what or "it is gone", *needed_by)
        if not all_of_them:
            return
        for facts in self._objects.listed("blobs"):
            name = facts.name.rpartition("/")[2]
            if not _DIGEST_HEX.fullmatch(name) or bytes.fromhex(name) in self._blobs:
                continue
            self.findings.verified.unreferenced.add(facts.size)
            digest = bytes.fromhex(name)
            if what := self._hash(facts.name, digest, facts.size):
                self.findings.damage(Path(facts.name), f"{what}; it is unreferenced")
        if files := self.findings.verified.unreferenced.files:
            blobs = "1 blob is" if files == 1 else f"{files:,} blobs are"
            self.findings.note(Path("blobs"), f"{blobs} unreferenced: asyncflow gc")

    def check_limits(self) -> None:
        """Check that each limit can be read."""
        for facts in self._objects.listed(LIMITS):
            if not is_limit(facts.name):
                continue
            limit, what = facts.name.split("/")[1], ""
            try:
                data, _ = self._objects.get_with_facts(facts.name, most_bytes=MOST_BYTES)
                self.findings.verified.size += len(data)
                unpack(data, limit)
            except FileNotFoundError:
                continue
            except OSError as error:
                what = reason_of(error)
            except LimitError as error:
                what = str(error)
            if what:
                self.findings.damage(Path(facts.name), what, f"limit {limit}")

    def _hash(self, name: str, digest: bytes, size: int) -> str | None:
        """What is wrong with a blob; an empty text if nothing is, None if it is not there."""
        hasher, read = blake3(), 0
        try:
            for chunk in self._objects.stream(name):
                hasher.update(chunk)
                read += len(chunk)
                self.findings.verified.size += len(chunk)
                self.findings.show_progress()
        except FileNotFoundError:
            return None
        except OSError as error:
            return reason_of(error)
        self.findings.verified.values += 1
        if read != size:
            return f"it has {read} bytes instead of {size}"
        return "" if hasher.digest() == digest else "its bytes have another hash than its name says"


def _reason(error: Exception) -> str:
    return reason_of(error) if isinstance(error, OSError) else str(error)
