"""Copies runs from one store to another, each with everything that it needs.

A run needs its journal and the files beside it, its segments, and the blobs that its journal names.
A run that has taken tasks over from others needs those runs: their journals have the output, and
their segments the values. So they are copied as well, the oldest first. Of an origin that was
removed, what is needed is copied, and it is a removed run in the other store, too.

A run appears in the other store at once, when all of it is there and has been verified: records by
their checksums, values by their hashes. A crash before leaves nothing that anybody finds; what it
leaves is used by the next attempt. A run that is there already is compared, and left as it is.

If the run is the one of its key, it is that in the other store as well, unless the key has another
run there.

Running runs are refused. What they have so far would look like an interrupted run, and resuming it
there would do work twice.
"""

from __future__ import annotations

from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from blake3 import blake3

from asyncflow.errors import (
    CopyError,
    JournalError,
    NotFoundError,
    RecordError,
    StoreError,
)
from asyncflow.events.records import (
    CLONED,
    KNOWN,
    REFERRING,
    RUN_STARTED,
    cloned_from,
    code_of,
    fields_of,
    named_fields,
    origin_of,
    references_of,
)
from asyncflow.store.frames import frame
from asyncflow.store.journal import FIRST_RECORD, HEADER
from asyncflow.store.layout import Layout
from asyncflow.store.maintenance.reachable import exclusive
from asyncflow.store.run_index import SUMMARY, Summary
from asyncflow.store.run_tags import TAGS
from asyncflow.store.run_times import TIMES
from asyncflow.store.segments import SUFFIX
from asyncflow.store.task_table import INDEX
from asyncflow.values import ArtifactRef, Place

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from asyncflow.store.incoming_interface import IncomingRun
    from asyncflow.store.interface import OpenJournal, RunStore, StoredRun
    from asyncflow.store.value_interface import ValueSource

_SEGMENT, _BLOB = int(Place.SEGMENT), int(Place.BLOB)
_JOURNAL: Final = "journal"
_CHUNK_BYTES: Final = 4 << 20
_BATCH_BYTES: Final = 1 << 20  # of records, written together
_KEPT_VALUES: Final = 1_000_000  # that were verified; some 100 bytes each
_MOST_FILE_BYTES: Final = 16 << 30  # of a file beside the journal; the index has 24 for each task


@dataclass(slots=True)
class CopiedRun:
    """What was done about one run."""

    flow: str
    run_id: str
    needed_by: str = ""
    """The run that needs it, if it was not chosen itself: `Flow/run`."""
    was_there: bool = False
    """Whether the store had it already."""
    removed: tuple[str, ...] = ()
    """Ids of removed runs of which it needs files; these were copied with it."""
    values: int = 0
    """How many blobs and segments were copied."""
    known: int = 0
    """How many the store had already."""
    size: int = 0
    """Bytes that were copied."""
    key: str = ""
    """The key of which it is the run; empty for none."""
    key_has: str = ""
    """The id of another run that has this key in the other store, and keeps it."""

    @property
    def pathspec(self) -> str:
        """`Flow/run`."""
        return f"{self.flow}/{self.run_id}"

    def to_data(self) -> dict[str, Any]:
        """As plain data, for JSON."""
        return {
            "pathspec": self.pathspec,
            "needed_by": self.needed_by or None,
            "was_there": self.was_there,
            "removed": list(self.removed),
            "values": self.values,
            "known": self.known,
            "bytes": self.size,
            "key": self.key or None,
            "key_has": self.key_has or None,
        }


@dataclass(slots=True)
class CopyProgress:
    """How far a copy is."""

    runs: int = 0
    """How many are to be copied, as far as is known."""
    done: list[CopiedRun] = field(default_factory=list)
    size: int = 0
    """Bytes that were copied so far."""


def choose_all(store: RunStore, flows: Iterable[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """All runs of some flows that have begun, and the pathspecs of those that are running.

    Raises:
        StoreError: The runs cannot be listed.
    """
    chosen: list[tuple[str, str]] = []
    running: list[str] = []
    for flow in flows:
        for run_id in store.runs(flow):
            run = store.run(flow, run_id)
            if run.is_being_written():
                running.append(run.pathspec)
            elif _has_begun(run):
                chosen.append((flow, run_id))
    return chosen, running


def copy_runs(
    source: RunStore,
    target: RunStore,
    runs: Iterable[tuple[str, str]],
    *,
    on_progress: Callable[[CopyProgress], None] = lambda _: None,
) -> list[CopiedRun]:
    """Copy runs, each given by flow and id, and the runs from which they have taken tasks over.

    Cancelled or killed: each run is in the other store whole or not at all.

    Raises:
        NotFoundError: There is no such run.
        CopyError: A run is running, or there is another one with its id in the other store.
        JournalError: A journal is damaged; no run is copied that needs it.
        ArtifactError: A value is missing or damaged; no run is copied that needs it.
        StoreError: A store cannot be read or written.
    """
    if source.is_at(target.location):
        raise CopyError(f"{source.location} and {target.location} are the same store")
    return _Copying(source, target, on_progress).run(runs)


class _Run(NamedTuple):
    flow: str
    run_id: str

    def __str__(self) -> str:
        return f"{self.flow}/{self.run_id}"


class _Needs:
    """What a journal refers to, outside of it."""

    def __init__(self) -> None:
        self.blobs: dict[bytes, int] = {}
        """Digests and sizes."""
        self.segments: dict[str, dict[str, int]] = {}
        """For each run, its segments, and how far into each a value reaches."""
        self.journals: set[str] = set()
        """Runs whose journals are needed."""
        self.end = FIRST_RECORD
        """Where the last record ends."""

    def origins(self, run_id: str) -> set[str]:
        """The other runs of the flow that are needed."""
        return (self.journals | self.segments.keys()) - {run_id}

    def note(self, ref: ArtifactRef) -> None:
        if ref.place == _BLOB:
            self.blobs[ref.digest] = ref.size
        elif ref.place == _SEGMENT:
            run_id, _, name = ref.file.partition("/")
            if name == _JOURNAL:
                self.journals.add(run_id)
                return
            if not name.endswith(SUFFIX):
                raise CopyError(f"a value is in {ref.file!r}, which is no segment")
            names = self.segments.setdefault(run_id, {})
            names[name] = max(names.get(name, 0), ref.offset + ref.size)


def _records(run: _Run, journal: OpenJournal) -> Iterator[tuple[bytes, int, int]]:
    """The records of a journal, their kinds, and where each ends.

    Raises:
        JournalError: A later version wrote one of them.
    """
    for at, record, end in journal.read_from(FIRST_RECORD):
        code = code_of(record)
        if code not in KNOWN:
            message = f"a later version of asyncflow wrote the record at byte {at} of {run}: "
            raise JournalError(f"{message}upgrade asyncflow to copy it")
        yield record, code, end


class _Copying:
    """One call of `copy_runs`."""

    def __init__(
        self, source: RunStore, target: RunStore, on_progress: Callable[[CopyProgress], None]
    ) -> None:
        self._source, self._target, self._on_progress = source, target, on_progress
        self._progress = CopyProgress()

    def run(self, runs: Iterable[tuple[str, str]]) -> list[CopiedRun]:
        chosen = [_Run(*each) for each in runs]
        for each in chosen:
            self._check(each)
        needed_by = self._with_origins(chosen)
        self._progress.runs = len(needed_by)
        # Ids of runs never go back, so an origin is before those that have resumed it.
        for each in sorted(needed_by, key=lambda run: (run.flow, int(run.run_id))):
            copied = self._copy(each, needed_by[each])
            self._copy_key(each, copied)
            self._progress.done.append(copied)
            self._on_progress(self._progress)
        return self._progress.done

    def _check(self, run: _Run) -> None:
        stored = self._source.run(*run)
        if not stored.is_there():
            raise NotFoundError(self._source.has_no_run(*run))
        if stored.is_being_written():
            raise CopyError(f"{run} is running: wait for its end, or cancel it")
        if not _has_begun(stored):
            raise CopyError(f"{run} ended before it began: there is nothing to copy")

    # --- what is needed -------------------------------------------------------------------------

    def _with_origins(self, chosen: Sequence[_Run]) -> dict[_Run, str]:
        """The runs to be copied, each with the run that needs it."""
        needed_by = dict.fromkeys(chosen, "")
        waiting = list(chosen)
        while waiting:
            run = waiting.pop()
            if self._target.run(*run).has_journal() or not self._resumes(run):
                continue
            needs = self._needs_of(run)
            self._add_removed(run.flow, needs, {})
            for run_id in sorted(needs.origins(run.run_id)):
                origin = _Run(run.flow, run_id)
                if origin not in needed_by and self._source.run(*origin).has_journal():
                    self._check(origin)
                    needed_by[origin] = str(run)
                    waiting.append(origin)
        return needed_by

    def _resumes(self, run: _Run) -> bool:
        with self._source.run(*run).open_journal() as journal:
            for record, code, _ in _records(run, journal):
                return code != RUN_STARTED or bool(origin_of(fields_of(record)).run_id)
        return False

    def _needs_of(self, run: _Run, *, removed: bool = False) -> _Needs:
        needs = _Needs()
        with self._source.run(*run, removed=removed).open_journal() as journal:
            for record, code, end in _records(run, journal):
                needs.end = end
                if code not in REFERRING:
                    continue
                values = fields_of(record)
                if code == CLONED:
                    needs.journals.add(cloned_from(values))
                if not removed:
                    for _, ref in references_of(values):
                        needs.note(ref)
            if needs.end < journal.size() and not journal.is_torn(needs.end):
                what = f"the record at byte {needs.end} is not what was written"
                raise JournalError(f"the journal of {run} is damaged: {what}")
        return needs

    def _add_removed(self, flow: str, needs: _Needs, found: dict[str, int]) -> None:
        """Add the origins of removed origins; `found` gets those that were removed.

        It has the length of each one's journal, or 0 if that was not kept.
        """
        waiting, seen = [*needs.journals], {*needs.journals}
        while waiting:
            origin = _Run(flow, waiting.pop())
            if self._source.run(*origin).has_journal():
                continue
            if not self._source.run(*origin, removed=True).has_journal():
                continue
            of_origin = self._needs_of(origin, removed=True)
            found[origin.run_id] = of_origin.end
            needs.journals |= of_origin.journals
            waiting += of_origin.journals - seen
            seen |= of_origin.journals
        for run_id in needs.segments:
            if not self._source.run(flow, run_id).has_journal():
                found.setdefault(run_id, 0)

    # --- copying --------------------------------------------------------------------------------

    def _copy(self, run: _Run, needed_by: str) -> CopiedRun:
        done = CopiedRun(*run, needed_by=needed_by)
        if self._target.run(*run).has_journal():
            self._compare(run)
            done.was_there = True
            return done
        needs = self._needs_of(run)
        removed: dict[str, int] = {}
        self._add_removed(run.flow, needs, removed)
        removed.pop(run.run_id, None)
        with ExitStack() as stack:
            incoming = {
                run_id: stack.enter_context(
                    self._target.receive(run.flow, run_id, removed=run_id in removed)
                )
                for run_id in sorted({*removed, run.run_id}, key=int)
            }
            own = incoming[run.run_id]
            source = self._source.value_source(run.flow)
            self._copy_blobs(own, source, needs, done)
            for run_id, each in incoming.items():
                for name, end in needs.segments.get(run_id, {}).items():
                    each.put_segment(name, end, self._segment(source, f"{run_id}/{name}", end))
                    done.values += 1
                    self._count(done, end)
            for run_id, end in removed.items():
                if end:
                    origin = _Run(run.flow, run_id)
                    self._copy_files(origin, incoming[run_id], {}, done, removed=True)
            self._copy_files(run, own, incoming, done)
            layout = self._target if isinstance(self._target, Layout) else None
            # A collection that begins between two commits would find a removed run unneeded.
            with nullcontext() if layout is None or not removed else exclusive(layout):
                for run_id in removed:
                    incoming[run_id].commit()
                own.commit()
        done.removed = tuple(sorted(removed, key=int))
        return done

    def _copy_key(self, run: _Run, done: CopiedRun) -> None:
        """Give its key to it in the other store, unless another run has it here or there."""
        key = self._key_of(run)
        if not key or self._source.run_of_key(run.flow, key) != run.run_id:
            return
        done.key = key
        with self._target.holding_key(run.flow, key) as holder:
            if not holder.run_id or not self._target.run(run.flow, holder.run_id).has_journal():
                holder.give_to(run.run_id)
            elif holder.run_id != run.run_id:
                done.key_has = holder.run_id

    def _key_of(self, run: _Run) -> str:
        with self._source.run(*run).open_journal() as journal:
            for record, code, _ in _records(run, journal):
                return str(named_fields(fields_of(record)).get("key") or "") * (code == RUN_STARTED)
        return ""

    def _copy_blobs(
        self, own: IncomingRun, source: ValueSource, needs: _Needs, done: CopiedRun
    ) -> None:
        for digest, size in needs.blobs.items():
            if own.has_large(digest, size):
                done.known += 1
                continue
            view = source.open_large(digest, size, name=f"{done.pathspec}: a value")
            own.put_large(digest, size, [view])
            done.values += 1
            self._count(done, size)

    def _segment(self, source: ValueSource, file: str, end: int) -> Iterator[bytes]:
        ref = ArtifactRef(_SEGMENT, 0, "", end, b"", file, 0, b"")
        for at in range(0, end, _CHUNK_BYTES):
            yield bytes(source.read(ref, at, min(_CHUNK_BYTES, end - at), name=file))

    def _copy_files(
        self,
        run: _Run,
        into: IncomingRun,
        incoming: dict[str, IncomingRun],
        done: CopiedRun,
        *,
        removed: bool = False,
    ) -> None:
        stored = self._source.run(*run, removed=removed)
        with stored.open_journal() as journal:
            into.put_journal(self._frames(run, journal, incoming, done))
        for name, data in self._small_files(run, stored):
            into.put_file(name, data)
            self._count(done, len(data))

    def _small_files(self, run: _Run, stored: StoredRun) -> Iterator[tuple[str, bytes]]:
        """The files beside a journal that are whole; what they tell is in the journal as well."""
        names = (TAGS, TIMES, INDEX, SUMMARY) if _has_summary(run, stored) else (TAGS,)
        for name in names:
            try:
                size = stored.file_size(name)
                data = stored.read_file(name, most=_MOST_FILE_BYTES)
            except FileNotFoundError:
                continue
            if len(data) != size:
                raise StoreError(f"the file {name} of {run} was changed meanwhile: copy it again")
            yield name, data

    def _frames(
        self,
        run: _Run,
        journal: OpenJournal,
        incoming: dict[str, IncomingRun],
        done: CopiedRun,
    ) -> Iterator[bytes]:
        """The bytes of a journal up to its last record; the values in segments are verified."""
        batch = [HEADER]
        size = len(HEADER)
        verified: set[tuple[str, int]] = set()
        source = self._source.value_source(run.flow)
        for record, code, _ in _records(run, journal):
            if incoming and code in REFERRING:
                for name, ref in references_of(fields_of(record)):
                    _verify(run, name, ref, source, incoming, verified)
            framed = frame(record)
            batch.append(framed)
            size += len(framed)
            if size >= _BATCH_BYTES:
                self._count(done, size)
                yield b"".join(batch)
                batch, size = [], 0
        self._count(done, size)
        yield b"".join(batch)

    def _count(self, done: CopiedRun, size: int) -> None:
        done.size += size
        self._progress.size += size
        self._on_progress(self._progress)

    # --- what is there already ------------------------------------------------------------------

    def _compare(self, run: _Run) -> None:
        hashes = []
        for store in (self._source, self._target):
            hasher = blake3()
            with store.run(*run).open_journal() as journal:
                for record, _, _ in _records(run, journal):
                    hasher.update(frame(record))
            hashes.append(hasher.digest())
        if hashes[0] != hashes[1]:
            raise CopyError(
                f"{self._target.location} has another run {run}: its journal differs from that in "
                f"{self._source.location}"
            )
        there = self._target.run(*run)
        if not there.has_file(SUMMARY):  # a crash came between the two
            for name, data in self._small_files(run, self._source.run(*run)):
                if name != TAGS:
                    there.put_file(name, data)


def _has_begun(stored: StoredRun) -> bool:
    try:
        with stored.open_journal() as journal:
            return next(iter(journal.read_from(FIRST_RECORD)), None) is not None
    except FileNotFoundError:
        return False


def _has_summary(run: _Run, stored: StoredRun) -> bool:
    """Whether a run has a summary that is not damaged.

    Raises:
        JournalError: It says that the journal was longer than it is.
    """
    try:
        summary = Summary.read(stored)
    except RecordError:
        return False
    if summary is None:
        return False
    if (size := stored.journal_size()) < summary.journal_bytes:
        raise JournalError(f"the journal of {run} ends at byte {size}, and was longer")
    return True


def _verify(
    run: _Run,
    name: str,
    ref: ArtifactRef,
    source: ValueSource,
    incoming: dict[str, IncomingRun],
    verified: set[tuple[str, int]],
) -> None:
    """Check a value in a segment that was copied, unless it was checked before.

    Raises:
        ArtifactCorruptError: Its bytes are not those that were stored.
    """
    run_id, _, file = ref.file.partition("/")
    key = ref.file, ref.offset
    if ref.place != _SEGMENT or file == _JOURNAL or run_id not in incoming or key in verified:
        return
    data = incoming[run_id].read_segment(file, ref.offset, ref.size)
    if len(data) != ref.size or blake3(data).digest() != ref.digest:
        incoming[run_id].delete_segment(file)
        where = f"its bytes from byte {ref.offset} on are not those that were stored"
        raise source.corrupt(ref, f"{name} of {run}", where)
    if len(verified) >= _KEPT_VALUES:
        verified.clear()
    verified.add(key)
