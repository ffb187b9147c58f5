"""Reads all there is in a store, and says what is not as it was written, and what that affects.

Every byte that matters is covered by a checksum: records of the journal by their own, the summary
likewise, the index by the summary's, blobs by their names, values in segments by the refs that name
them. What no ref names affects nothing, and is only told. Nothing is unpickled, so no code of a
user is run, and nothing is changed. Files are read, not mapped: a disk that cannot read one any
more is found out as an error, not as the end of the process.

Each value is hashed once, however many tasks and runs share it; some 100 bytes of each are kept.
"""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from zlib import crc32

from blake3 import blake3

from asyncflow.errors import JournalError, LimitError, RecordError, StoreError
from asyncflow.events.records import (
    ENDINGS,
    FAILED,
    HANDING_ON,
    KNOWN,
    OF_TASKS,
    REFERRING,
    RUN_STARTED,
    code_of,
    fields_of,
    output_before,
    references_of,
    step_of,
    task_of,
)
from asyncflow.store.blobs import open_blob
from asyncflow.store.files import open_file, read_at, read_file
from asyncflow.store.folders import is_link
from asyncflow.store.journal import HEADER, JournalReader, is_being_written, later_format
from asyncflow.store.layout import FORMAT, FORMAT_DRAFT, sign_of_beginning
from asyncflow.store.limit_files import DRAFT, FILE_BYTES, unpack_bounds
from asyncflow.store.maintenance.collect import Amount
from asyncflow.store.run_ids import REMOVED
from asyncflow.store.run_index import Summary, TaskTable, most_table_bytes, other_owner
from asyncflow.store.segments import SUFFIX
from asyncflow.values import Place

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from asyncflow.store.layout import Layout, Listing
    from asyncflow.values import ArtifactRef

_SEGMENT, _BLOB = int(Place.SEGMENT), int(Place.BLOB)  # see asyncflow.store.artifacts
_CHUNK_BYTES: Final = 4 << 20
_NAMED: Final = 20  # affected things that are named; the others are counted
_KEPT_RANGES: Final = 4_000_000  # above, ranges of segments are forgotten, and perhaps read twice
_TOLD_EVERY: Final = 512  # records
_DIGEST_HEX: Final = re.compile(r"[0-9a-f]{64}")
_OF_A_FOLDER: Final = 4  # parts of the path of a run's folder, at most: flows/F/.removed/1
_OF_A_RUN: Final = frozenset({"journal", "summary", "index"})


@dataclass(slots=True)
class Damage:
    """Something that is not as it was written."""

    file: str
    """Relative to the store."""
    what: str
    affected: list[str] = field(default_factory=list)
    """Pathspecs of runs, tasks and artifacts, the first of them; none if it belongs to nothing."""
    count: int = 0
    """How many are affected."""

    def add(self, pathspec: str) -> None:
        """One more thing is affected."""
        if pathspec not in self.affected:
            self.count += 1
            if len(self.affected) < _NAMED:
                self.affected.append(pathspec)

    def to_data(self) -> dict[str, Any]:
        """As plain data, for JSON."""
        return {
            "file": self.file,
            "what": self.what,
            "affected": self.affected,
            "affected_count": self.count,
        }


@dataclass(slots=True)
class Verified:
    """What was read, and what came of it."""

    runs: int = 0
    tasks: int = 0
    """Finished ones, those that were taken over included."""
    values: int = 0
    """Different ones, those in the journal itself not counted."""
    size: int = 0
    """Bytes that were read."""
    damage: list[Damage] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What is no damage, but worth knowing."""
    unreferenced: Amount = field(default_factory=Amount)
    """Files that belong to nothing."""

    def to_data(self) -> dict[str, Any]:
        """As plain data, for JSON."""
        return {
            "clean": not self.damage,
            "runs": self.runs,
            "tasks": self.tasks,
            "values": self.values,
            "bytes": self.size,
            "damage": [damage.to_data() for damage in self.damage],
            "notes": self.notes,
            "unreferenced": {"files": self.unreferenced.files, "bytes": self.unreferenced.size},
        }


def verify(
    layout: Layout,
    flow: str | None = None,
    run_id: str | None = None,
    *,
    on_progress: Callable[[Verified], None] = lambda _: None,
) -> Verified:
    """Verify a run, or all of a flow, or the whole store.

    It may be done beside whatever runs. `on_progress` is called now and then with what is known by
    then.
    """
    open_file.cache_clear()  # what was opened before may have been deleted or replaced since
    verification = _Verification(layout, on_progress)
    for name in verification.flows() if flow is None else [flow]:
        verification.check_flow(name, run_id)
    if flow is None:
        verification.check_rest()
    return verification.verified


class _Verification:
    """One pass over a store."""

    def __init__(self, layout: Layout, on_progress: Callable[[Verified], None]) -> None:
        self.layout, self._on_progress = layout, on_progress
        self.verified = Verified()
        self._ranges: set[int] = set()  # those of segments that are as they were written
        self._blobs: set[bytes] = set()
        self._bad: dict[tuple[str, int], Damage] = {}  # by file and offset
        self._numbers: dict[str, int] = {}  # of segments

    # --- what all parts need ---

    def damage(self, path: Path, what: str, *affected: str) -> Damage:
        """Something is damaged."""
        found = Damage(self._relative(path), what)
        for pathspec in affected:
            found.add(pathspec)
        self.verified.damage.append(found)
        return found

    def note(self, path: Path, what: str) -> None:
        """Something is no damage, but worth knowing."""
        self.verified.notes.append(f"{self._relative(path)}: {what}")

    def note_link(self, path: Path) -> None:
        """A folder is a link, if it is."""
        if is_link(path):
            self.note(path, "a link: what it leads to is read, and never changed")

    def _unreferenced(self, path: Path, what: str = "") -> None:
        try:
            size = path.stat().st_size
        except OSError:
            return
        self.verified.unreferenced.add(size)
        if what:
            self.note(path, what)

    def _relative(self, path: Path) -> str:
        return str(path.relative_to(self.layout.root))

    def told(self) -> None:
        """A moment has passed."""
        self._on_progress(self.verified)

    # --- runs ---

    def flows(self) -> list[str]:
        """All that can be found."""
        try:
            return self._found(self.layout.list_flows(), "the store")
        except StoreError as error:
            self.damage(self.layout.root / "flows", str(error), "the store")
            return []

    def _found(self, listing: Listing, owner: str) -> list[str]:
        for stray in listing.strays:
            self.damage(stray.path, stray.what, owner)
        return listing.names

    def check_flow(self, flow: str, run_id: str | None) -> None:
        """A run of a flow, or all that there is of it."""
        self.note_link(self.layout.flow_dir(flow))
        if run_id is not None:
            self.check_run(flow, run_id)
            return
        try:
            for each in self._found(self.layout.list_runs(flow), flow):
                self.check_run(flow, each)
            self.check_rest_of_flow(flow)
        except StoreError as error:
            self.damage(self.layout.flow_dir(flow), str(error), flow)

    def check_run(self, flow: str, run_id: str) -> None:
        folder = self.layout.run_dir(flow, run_id)
        self.note_link(folder)
        before = len(self.verified.damage)
        _RunVerification(self, folder, f"{flow}/{run_id}", flow).check()
        if not folder.exists():  # somebody has removed it meanwhile, and its files with it
            del self.verified.damage[before:]
        self.verified.runs += 1
        self.told()

    def check_rest_of_flow(self, flow: str) -> None:
        """What its runs have in their folders, and what is left of removed ones."""
        self.note_link(self.layout.removed_dir(flow))
        for run_id in self.layout.removed_runs(flow):
            folder = self.layout.removed_dir(flow, run_id)
            self.note_link(folder)
            pathspec = f"{flow}/{run_id} (removed)"
            _RunVerification(self, folder, pathspec, flow, removed=True).check()
            self._check_folder(folder, flow, run_id)
        for run_id in self.layout.runs(flow):
            folder = self.layout.run_dir(flow, run_id)
            if not is_being_written(folder / "journal"):
                self._check_folder(folder, flow, run_id)

    def _check_folder(self, folder: Path, flow: str, run_id: str) -> None:
        try:
            paths = _entries(folder)
        except OSError:
            return  # which has been told of: its journal cannot be read either
        for path in paths:
            if path.name in _OF_A_RUN:
                continue
            segment = f"{flow}/{run_id}/{path.name}"
            if path.name.endswith(SUFFIX) and segment in self._numbers:
                continue
            self._unreferenced(path, "unreferenced: it belongs to no artifact")

    # --- values ---

    def check_ref(self, flow: str, ref: ArtifactRef, pathspec: str) -> None:
        """Check the bytes that a ref names, unless that was done."""
        place, _, _, size, digest, file, offset, _ = ref
        if place == _BLOB:
            if digest not in self._blobs:
                self._check_blob(digest, size)
            bad = self._bad.get((digest.hex(), 0))
        elif place == _SEGMENT:
            segment = f"{flow}/{file}"
            key = self._numbers.setdefault(segment, len(self._numbers)) << 64 | offset
            if key not in self._ranges:
                self._check_range(key, flow, segment, (offset, size, digest))
            bad = self._bad.get((segment, offset))
        else:
            return
        if bad is not None:
            bad.add(pathspec)

    def _check_blob(self, digest: bytes, size: int | None) -> None:
        self._blobs.add(digest)
        self.verified.values += 1
        path = Path(self.layout.blob(digest))
        what = self._hash_blob(digest, size)
        if what:
            self._bad[digest.hex(), 0] = self.damage(path, what)

    def _hash_blob(self, digest: bytes, size: int | None) -> str:
        """What is wrong with a blob; nothing if nothing is."""
        hasher = blake3()
        try:
            with os.fdopen(open_blob(self.layout, digest), "rb", buffering=0) as file:
                left = os.fstat(file.fileno()).st_size
                if size is not None and left != size:
                    return f"it has {left} bytes instead of {size}"
                while chunk := file.read(min(left, _CHUNK_BYTES)):
                    hasher.update(chunk)
                    left -= len(chunk)
                    self.verified.size += len(chunk)
                    self.told()
        except FileNotFoundError:
            return "the file is gone"
        except OSError as error:
            return f"it cannot be read: {error.strerror}"
        return "" if hasher.digest() == digest else "its bytes have another hash than its name says"

    def _check_range(
        self, key: int, flow: str, segment: str, wanted: tuple[int, int, bytes]
    ) -> None:
        if len(self._ranges) > _KEPT_RANGES:
            self._ranges.clear()
        self._ranges.add(key)
        self.verified.values += 1
        path = self._segment_path(flow, segment)
        what = self._hash_range(path, *wanted)
        if what and (segment, wanted[0]) not in self._bad:
            self._bad[segment, wanted[0]] = self.damage(path, what)

    def _segment_path(self, flow: str, segment: str) -> Path:
        path = self.layout.root / "flows" / segment
        if os.path.exists(path):  # noqa: PTH110 - the other one raises where it may not look
            return path
        removed = self.layout.root / "flows" / flow / REMOVED / segment.partition("/")[2]
        return removed if os.path.exists(removed) else path  # noqa: PTH110 - as above

    def _hash_range(self, path: Path, offset: int, size: int, digest: bytes) -> str:
        """What is wrong with a value in a segment; nothing if nothing is."""
        try:
            data = read_at(str(path), offset, size)
        except FileNotFoundError:
            return "the file is gone"
        except OSError as error:
            return f"it cannot be read: {error.strerror}"
        self.verified.size += len(data)
        if len(data) != size:
            return f"it ends before byte {offset + size}"
        if blake3(data).digest() != digest:
            return f"the value from byte {offset} on, {size} bytes, has another hash"
        return ""

    # --- the rest of the store ---

    def check_rest(self) -> None:
        """What belongs to no flow."""
        self._check_root()
        self._check_limits()
        before = self.verified.unreferenced.files
        drafts = 0
        for folder in (self.layout.root / "flows", self.layout.blobs, self.layout.limits):
            self.note_link(folder)
        for shard in self._entries(self.layout.blobs, are_folders=True):
            self.note_link(shard)
            for path in self._entries(shard):
                if shard.name == "new":
                    drafts += 1
                    self._unreferenced(path)
                else:
                    self._check_stray_blob(path)
        if count := self.verified.unreferenced.files - before - drafts:
            blobs = "1 blob is" if count == 1 else f"{count:,} blobs are"
            self.note(self.layout.blobs, f"{blobs} {self._unreferenced_blobs()}")
        if drafts:
            self.note(self.layout.blobs / "new", f"{drafts:,} unfinished blobs, or being written")

    def _check_root(self) -> None:
        root = self.layout.root
        for path in self._entries(root):
            if FORMAT_DRAFT.fullmatch(path.name):
                self._unreferenced(path, "unfinished; after an hour asyncflow gc deletes it")
            elif path.name != "format":
                self._unreferenced(path, "unreferenced: it is not of the store's own")
        try:
            if read_file(root / "format", most=100) != f"{FORMAT}\n".encode():
                self.damage(root / "format", f"it does not say {FORMAT}", "the store")
        except OSError as error:
            self.damage(root / "format", f"it cannot be read: {error.strerror}", "the store")

    def _entries(self, folder: Path, *, are_folders: bool = False) -> list[Path]:
        """What is in a folder; nothing if it cannot be read, which is damage."""
        try:
            return _entries(folder, are_folders=are_folders)
        except OSError as error:
            self.damage(folder, f"it cannot be read: {error.strerror}", "the store")
            return []

    def _unreferenced_blobs(self) -> str:
        """What there is to do about them: where refs cannot be read, nobody knows of any."""
        for damage in self.verified.damage:
            parts = Path(damage.file).parts
            if parts[-1] == "journal" or (parts[0] == "flows" and len(parts) <= _OF_A_FOLDER):
                return "referred to by nothing that can be read: mend the damage, then asyncflow gc"
        return "unreferenced: asyncflow gc"

    def _check_limits(self) -> None:
        for path in self._entries(self.layout.limits):
            if DRAFT.fullmatch(path.name):
                self._unreferenced(path)
                continue
            try:
                data = read_file(path, most=FILE_BYTES)
                self.verified.size += len(data)
                unpack_bounds(data, path)
            except OSError as error:
                self.damage(path, f"it cannot be read: {error.strerror}", f"limit {path.name}")
            except LimitError as error:
                self.damage(path, str(error), f"limit {path.name}")

    def _check_stray_blob(self, path: Path) -> None:
        """A blob, unless some ref has named it."""
        name = path.name
        if not _DIGEST_HEX.fullmatch(name) or name[:2] != path.parent.name:
            self._unreferenced(path, "unreferenced: it is no blob")
            return
        digest = bytes.fromhex(name)
        if digest not in self._blobs:
            self._unreferenced(path)
            self.verified.values += 1
            what = self._hash_blob(digest, None)
            if what and path.exists():  # a garbage collection may be going on
                self.damage(path, f"{what}; it is unreferenced")


class _RunVerification:
    """One run of it: its journal, its summary and its index."""

    def __init__(
        self, whole: _Verification, folder: Path, pathspec: str, flow: str, *, removed: bool = False
    ) -> None:
        self._whole, self._folder, self._pathspec, self._flow = whole, folder, pathspec, flow
        self._removed = removed
        self._path = folder / "journal"
        self._running = is_being_written(self._path)
        self._table = TaskTable()
        self._steps: list[str] = []
        self._holes: list[tuple[int, int, Damage]] = []  # where the journal cannot be read
        self._ended = False
        self._begun = False

    def check(self) -> None:
        summary = self._check_summary()
        try:
            with JournalReader(self._path) as journal:
                self._check_journal(journal, summary)
        except FileNotFoundError:
            if summary is not None:
                self._whole.damage(self._path, "the file is gone", self._pathspec)
            elif not self._removed:
                self._note_unbegun()
        except JournalError:
            if number := later_format(self._path):
                what = f"a later version of asyncflow wrote it, in format {number}; not verified"
                self._whole.note(self._path, f"{what}: upgrade asyncflow for that")
                return
            what = f"it does not begin with {HEADER.decode().strip()!r}"
            self._whole.damage(self._path, what, self._pathspec)
        except OSError as error:
            what = f"it cannot be read: {error.strerror}"
            self._whole.damage(self._path, what, self._pathspec)

    # --- summary and index ---

    def _check_summary(self) -> Summary | None:
        path = self._folder / "summary"
        try:
            summary = Summary.read(path)
        except RecordError as error:
            what = f"{error.__cause__}; delete it, and the journal is read instead"
            self._whole.damage(path, what, self._pathspec)
            return None
        except OSError as error:
            what = f"it cannot be read: {error.strerror}"
            self._whole.damage(path, what, self._pathspec)
            return None
        if summary is not None and (owner := other_owner(summary, self._folder)):
            self._whole.damage(
                path, f"it is that of {owner}: call the folder so again", self._pathspec
            )
        if summary is not None:
            self._check_index(summary)
        return summary

    def _check_index(self, summary: Summary) -> None:
        path = self._folder / "index"
        self._steps = [name for name, _ in summary.steps]
        advice = "delete it, and the journal is read instead"
        try:
            size = path.stat().st_size
            table = TaskTable.read(path, most=most_table_bytes(self._journal_bytes()))
        except OSError as error:
            self._whole.damage(path, f"it cannot be read: {error.strerror}", self._pathspec)
            return
        self._whole.verified.size += len(table.dump())
        if len(table.dump()) != size or crc32(table.dump()) != summary.index_checksum:
            self._whole.damage(path, f"it is not what was written; {advice}", self._pathspec)
        else:
            self._table = table

    def _journal_bytes(self) -> int:
        try:
            return self._path.stat().st_size
        except OSError:
            return 0

    # --- the journal ---

    def _check_journal(self, journal: JournalReader, summary: Summary | None) -> None:
        end = len(HEADER)
        while True:
            try:
                for at, record, after in journal.read_from(end):
                    self._take(at, record)
                    end = after
                break
            except JournalError:
                bad, end = end, journal.find_record(end + 1) or journal.size()
                self._note_hole(bad, end)
        self._whole.verified.size += journal.size()
        self._check_end(journal, end, summary)

    def _note_hole(self, begin: int, end: int) -> None:
        what = f"the record at byte {begin} is not what was written"
        damage = self._whole.damage(self._path, what)
        self._holes.append((begin, end, damage))
        for pathspec in self._tasks_between(begin, end):
            damage.add(pathspec)
        if begin == len(HEADER):
            damage.add(self._pathspec)

    def _check_end(self, journal: JournalReader, end: int, summary: Summary | None) -> None:
        size = journal.size()
        if summary is not None and end < summary.journal_bytes and not self._holes:
            what = f"it ends at byte {end} and had {summary.journal_bytes} when the run ended"
            tasks = self._tasks_between(end, summary.journal_bytes)
            self._whole.damage(self._path, what, self._pathspec, *tasks)
        elif end < size and (self._ended or summary is not None):
            what = f"{size - end} bytes from byte {end} on are not what was written"
            self._whole.damage(self._path, what, self._pathspec)
        elif end < size and not self._running and not journal.is_torn(end):
            what = (
                f"the last record, at byte {end}, is not what was written; readers leave it out, "
                "and a resume runs again what it told of"
            )
            self._whole.damage(self._path, what, self._pathspec)
        elif end < size and not self._running:
            self._whole.note(
                self._path,
                f"the run was interrupted while it wrote: {size - end} bytes from byte {end} on "
                "are the beginning of a record. This is no damage; the record was announced to "
                "nobody",
            )
        for _, _, damage in self._holes:  # of those that nothing has told more of
            if not damage.count:
                damage.add(self._pathspec)
        if not self._begun and not self._holes and summary is None and not self._running:
            self._note_unbegun()

    def _note_unbegun(self) -> None:
        """Nothing tells of its beginning; it may be beginning just now."""
        sign = sign_of_beginning(self._folder)
        if not sign:
            self._whole.note(self._folder, "unreferenced: a run that never began")
        elif not self._has_begun_since():
            what = f"it tells of no beginning, and {sign} is there"
            self._whole.damage(self._path, what, self._pathspec)

    def _has_begun_since(self) -> bool:
        if is_being_written(self._path):
            return True
        try:
            with JournalReader(self._path) as journal:
                return any(True for _ in journal.read_from())
        except (JournalError, OSError):
            return False

    def _take(self, at: int, record: bytes) -> None:
        """One record that is as it was written."""
        whole = self._whole
        code = -1
        self._begun = True
        with self._blaming(at):
            code = code_of(record)
            values = fields_of(record)
            if code in REFERRING or (self._holes and code in OF_TASKS):
                self._follow(values)
        self._ended = self._ended or code in ENDINGS
        if code >= 0 and code not in KNOWN:
            whole.note(self._path, f"a later version wrote the record at byte {at}; not followed")
        if not at % _TOLD_EVERY:
            whole.told()

    @contextmanager
    def _blaming(self, at: int) -> Iterator[None]:
        try:
            yield
        except RecordError as error:
            what = f"the record at byte {at} is no event: {error}"
            self._whole.damage(self._path, what, self._pathspec)

    def _follow(self, values: list[Any]) -> None:
        code = values[0]
        run = self._pathspec
        owner = run if code == RUN_STARTED else f"{run}/{step_of(values)}/{task_of(values)}"
        self._link_output(values, owner)
        if code not in REFERRING or self._removed:
            return
        if code in HANDING_ON:
            self._whole.verified.tasks += 1
        owner = f"{run}/parameters" if code == RUN_STARTED else owner
        for name, ref in references_of(values):
            self._whole.check_ref(self._flow, ref, f"{owner}/{name}")

    def _link_output(self, values: list[Any], owner: str) -> None:
        """A record tells whose output it was that cannot be read any more."""
        if not self._holes or values[0] == RUN_STARTED:
            return
        before = output_before(values)
        for begin, end, damage in self._holes:
            if before and begin <= before < end:
                damage.add(
                    f"{owner} ({'output' if values[0] != FAILED else 'output of a failure'})"
                )

    def _tasks_between(self, begin: int, end: int) -> Iterator[str]:
        """The tasks of which the journal tells in this range, if the index is there to say so."""
        for task in range(1, len(self._table) + 1):
            entry = self._table[task]
            if begin <= entry.started < end or begin <= entry.ended < end:
                step = self._steps[entry.step] if entry.step < len(self._steps) else "?"
                yield f"{self._pathspec}/{step}/{task}"


def _entries(folder: Path, *, are_folders: bool = False) -> list[Path]:
    """The folders in a folder, or all else; nothing if there is none.

    Raises:
        OSError: It cannot be read.
    """
    try:
        with os.scandir(folder) as entries:
            return [Path(entry.path) for entry in entries if _is_folder(entry) == are_folders]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself, or where one may not go
        return False
