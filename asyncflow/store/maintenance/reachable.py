"""Finds the files of a store that are needed, from the journals alone.

Safe beside runs that run and start. Whether a run is running is checked before its journal is read.
If it was not, its whole journal is known; if it was, none of its own files counts as unneeded. A
run that starts meanwhile refers only to files that are young or belong to a run that was there
before.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Final

from asyncflow._support.fork_safety import keep_from_children, no_forks
from asyncflow.errors import JournalError, StoreError
from asyncflow.events.records import (
    CLONED,
    KNOWN,
    REFERRING,
    RUN_STARTED,
    cloned_from,
    code_of,
    fields_of,
    origin_of,
    references_of,
)
from asyncflow.store.file_locks import holder_of, lock_within
from asyncflow.store.files import explain, open_regular, reason_of
from asyncflow.store.journal import FIRST_RECORD, later_format
from asyncflow.store.layout import Layout, sign_of_beginning
from asyncflow.store.local_store import LocalRun, LocalStore
from asyncflow.store.run_index import Summary, other_owner
from asyncflow.store.run_times import TIMES
from asyncflow.values import Place

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from asyncflow.store.interface import OpenJournal, RunStore, StoredRun
    from asyncflow.store.layout import Listing
    from asyncflow.values import ArtifactRef

_SEGMENT, _BLOB = int(Place.SEGMENT), int(Place.BLOB)  # see asyncflow.store.artifacts


_SILENT_SECONDS: Final = 1.0


ProgressListener = Callable[[str, int, int], object]
"""Hears what is counted, such as `runs read`, how many of them are done, and of how many."""


def ignore_progress(what: str, done: int, total: int) -> None:
    """Do nothing."""


class Stage(Enum):
    """Whether a run has begun, and whether it has ended."""

    UNBEGUN = "unbegun"  # its first event is not on disk; it may be starting
    RUNNING = "running"
    OVER = "over"  # finished or interrupted: nobody writes to it any more


@contextmanager
def exclusive(layout: Layout, on_wait: Callable[[str], None] = lambda _: None) -> Iterator[None]:
    """Keep other processes from collecting and removing within the block; waits for its turn.

    After a second, `on_wait` is called once with a text that says what it waits for.

    Raises:
        StoreError: The store is on a file system without locks, or cannot be read.
    """
    path = layout.root / "format"
    try:
        with no_forks():
            file = os.fdopen(open_regular(path), "rb", buffering=0)
            keep_from_children(file)
    except OSError as error:
        raise StoreError(explain(path, error, doing="read")) from error
    try:
        if not lock_within(file.fileno(), _SILENT_SECONDS):
            on_wait(f"waiting for {holder_of(file.fileno())}, which holds a lock on {path}")
            fcntl.flock(file, fcntl.LOCK_EX)
    except OSError as error:
        file.close()
        message = (
            f"the file system of {path} has no file locks ({error.strerror}), so it is unknown "
            "which runs are running; collect from a machine where the store is on a local disk"
        )
        raise StoreError(message) from error
    try:
        yield
    finally:
        file.close()


class Marks:
    """The files and blobs that journals refer to, in one store or in one flow.

    Takes some 100 bytes for each blob that is needed.
    """

    def __init__(
        self, layout: Layout | RunStore, *, removing: Iterable[tuple[str, str]] = ()
    ) -> None:
        """Start empty; runs in `removing` count as removed."""
        self._store = _as_store(layout)
        self._removing = frozenset(removing)
        self._unclear: set[str] = set()  # flows in which a removed run has a damaged journal
        self._obscure: set[str] = set()  # flows in which another run has one
        self.blobs: set[bytes] = set()
        """The digests of needed blobs."""
        self.files: set[tuple[str, str]] = set()
        """Needed files of runs: the flow, and the path in its folder as refs have it."""
        self.logs: set[tuple[str, str]] = set()
        """Runs whose journals have the output of tasks that other runs took over: flow and run."""
        self.resuming: dict[tuple[str, str], str] = {}
        """Runs from which a running run is taking tasks over, and that running run's id."""
        self.stages: dict[tuple[str, str], Stage] = {}
        """The runs that were found, in the order in which they were read."""
        self.running_since: int | None = None
        """When the oldest running run was started, in microseconds; None while none is running."""

    # --- reading ---

    def read_all(self, on_progress: ProgressListener = ignore_progress) -> None:
        """Read every journal of the store; `on_progress` hears of each run.

        Raises:
            JournalError: A journal is damaged, so what it refers to is unknown.
            StoreError: Flows or runs cannot be found, or something among them is neither.
        """
        runs = {flow: self._runs(flow) for flow in self._flows()}
        total = sum(map(len, runs.values()))
        for flow, run_ids in runs.items():
            for run_id in run_ids:
                self.read_run(flow, run_id)
                on_progress("runs read", len(self.stages), total)
            self.read_removed(flow)

    def _flows(self) -> list[str]:
        return _clear("the runs of the store need", self._store.list_flows)

    def _runs(self, flow: str) -> list[str]:
        return _clear(f"the runs of {flow} need", lambda: self._store.list_runs(flow))

    def read_resumed(self, flow: str) -> None:
        """Read those journals of a flow that may refer to other runs' files.

        A damaged one may refer to anything: then every file of the flow is needed.

        Raises:
            JournalError: It is that of a removed run from which a running run takes over.
        """
        self.read_news(flow)
        self.read_removed(flow)

    def read_news(self, flow: str) -> None:
        """Read those journals again that may have grown since they were read."""
        listing = self._store.list_runs(flow)
        if listing.strays:  # one of them may be a run that was renamed
            self._obscure.add(flow)
        for run_id in listing.names:
            run = flow, run_id
            if run not in self._removing and self.stages.get(run) is not Stage.OVER:
                try:
                    self.read_run(flow, run_id, if_resumed=True)
                except JournalError:
                    self._obscure.add(flow)

    def read_changes(self, flow: str) -> None:
        """Read all journals of a flow again that may have grown, or begun, since they were read.

        Raises:
            JournalError: A journal is damaged, so what it refers to is unknown.
        """
        for run_id in self._runs(flow):
            if self.stages.get((flow, run_id)) is not Stage.OVER:
                self.read_run(flow, run_id)

    def read_run(self, flow: str, run_id: str, *, if_resumed: bool = False) -> Stage:
        """Read one journal; with `if_resumed`, only if the run has resumed another.

        Raises:
            JournalError: It is damaged.
        """
        run = self._store.run(flow, run_id)
        stage = self._read_run(run, if_resumed=if_resumed)
        if stage is Stage.UNBEGUN and _sign_of_beginning(run):
            # The run may have begun and ended since.
            stage = self._read_run(run, if_resumed=if_resumed)
            if stage is Stage.UNBEGUN and (sign := _sign_of_beginning(run)):
                raise JournalError(_explain(run, f"it has no first event, but {sign} exists"))
        self.stages[flow, run_id] = stage
        return stage

    def is_running(self, run: StoredRun) -> bool:
        """Whether somebody may still append to a run's journal."""
        return run.is_being_written()

    def _read_run(self, run: StoredRun, *, if_resumed: bool) -> Stage:
        running = self.is_running(run)  # first, as the module's docstring says
        begun = False
        for values, refs in _referring(run, running=running):
            if values[0] == RUN_STARTED:
                begun = True
                self._note_start(run.flow, run.run_id, values, running=running)
                if if_resumed and not origin_of(values).run_id:
                    break
            self._note(run.flow, values, refs)
        return Stage.RUNNING if running else Stage.OVER if begun else Stage.UNBEGUN

    def _note_start(self, flow: str, run_id: str, values: list[object], *, running: bool) -> None:
        origin, started = origin_of(values)
        if not running:
            return
        self.running_since = min(started, self.running_since or started)
        if origin:
            self.resuming[flow, origin] = run_id

    def _note(self, flow: str, values: list[object], refs: Iterable[ArtifactRef]) -> None:
        for ref in refs:
            if ref.place == _BLOB:
                self.blobs.add(ref.digest)
            elif ref.place == _SEGMENT:
                self.files.add((flow, ref.file))
        if values[0] == CLONED:
            self.logs.add((flow, cloned_from(values)))

    def read_removed(self, flow: str) -> None:
        """Read the journals of removed runs, as far as other runs need them.

        If a running run is taking tasks over from it, all of it is needed. Otherwise its journal is
        needed if it has the output of a task that was taken over; it may refer further back.
        """
        waiting = [run for of_flow, run in (*self.logs, *self.resuming) if of_flow == flow]
        seen: set[str] = set()
        while waiting:
            run_id = waiting.pop()
            if run_id in seen:
                continue
            seen.add(run_id)
            run = self._store.run(flow, run_id, removed=True)
            if (flow, run_id) in self._removing and not _has_journal(run):
                run = self._store.run(flow, run_id)
            if _has_journal(run):
                waiting += self._read_removed(run)

    def _read_removed(self, run: StoredRun) -> set[str]:
        origins, flow, run_id = set(), run.flow, run.run_id
        whole = (flow, run_id) in self.resuming
        try:
            for values, refs in _referring(run, running=False):
                if values[0] == CLONED:
                    origins.add(cloned_from(values))
                    self.logs.add((flow, cloned_from(values)))
                if whole:
                    self._note(flow, values, refs)
        except JournalError:
            if whole:
                raise
            self._unclear.add(flow)
        return origins

    # --- asking ---

    def needs(self, flow: str, run_id: str, file: str) -> bool:
        """Whether a journal refers to this file of a run that is not running."""
        if (flow, f"{run_id}/{file}") in self.files or (flow, run_id) in self.resuming:
            return True
        if flow in self._obscure:
            return True
        # Beside a needed journal, keep the files that make it quick to open.
        return file in {"journal", "summary", "index", TIMES} and (
            (flow, run_id) in self.logs
            or (flow, f"{run_id}/journal") in self.files
            or flow in self._unclear
        )


def _clear(what: str, list_them: Callable[[], Listing]) -> list[str]:
    """The names in a listing, if the listing is complete.

    Raises:
        StoreError: It is not complete.
    """
    try:
        listing = list_them()
        if not listing.strays:
            return listing.names
        raise StoreError(str(listing.strays[0]))  # noqa: TRY301 - explained below, as the others
    except StoreError as error:
        message = f"it is unknown what {what}: {error}, and collect again; nothing was deleted"
        raise StoreError(message) from error


def _as_store(layout: Layout | RunStore) -> RunStore:
    if isinstance(layout, Layout) and not isinstance(layout, LocalStore):
        return LocalStore(layout.root)
    return layout


def _sign_of_beginning(run: StoredRun) -> str:
    """What only a run in a folder can have that has begun; empty if it has nothing of the kind.

    In an object store, values come before the journal, and the journal goes before values.
    """
    return sign_of_beginning(Path(run.place)) if isinstance(run, LocalRun) else ""


def _has_journal(run: StoredRun) -> bool:
    """Whether there is a journal, readable or not.

    Raises:
        JournalError: That cannot be found out.
    """
    try:
        return run.has_journal()
    except OSError as error:
        raise JournalError(_explain(run, reason_of(error))) from error


def resumers(layout: Layout | RunStore, flow: str) -> dict[str, str]:
    """The runs of a flow from which a running run is taking tasks over, each with that run.

    If such an origin was interrupted before it had taken over all of its own origin, that one is
    included, too.

    Raises:
        JournalError: The journal of a running run, or of such an origin, is damaged.
    """
    store = _as_store(layout)
    found: dict[str, str] = {}
    for run_id in store.runs(flow):
        run = store.run(flow, run_id)
        if run.is_being_written():
            origin = _origin_of(run, running=True)
            while origin and origin not in found:
                found[origin] = run_id
                origin = _origin_of(store.run(flow, origin), running=False)
    return found


def _origin_of(run: StoredRun, *, running: bool) -> str:
    """The run that a run resumes; empty if it resumes none, or has not begun."""
    for values, _ in _referring(run, running=running):
        return origin_of(values).run_id
    return ""


def _referring(
    run: StoredRun, *, running: bool
) -> Iterator[tuple[list[object], list[ArtifactRef]]]:
    """The records of a journal that refer to values, and these values."""
    summary = _summary(run)
    try:
        reader = run.open_journal()
    except FileNotFoundError:
        if summary is not None:
            raise JournalError(_explain(run, "it is gone")) from None
        return
    except (JournalError, OSError) as error:
        raise JournalError(_explain(run, _reason(error))) from error
    with reader:
        end, later = FIRST_RECORD, 0
        try:
            for at, record, end in reader.read_from():  # noqa: B007 - the end of the last one
                code = code_of(record)
                if code not in KNOWN:
                    later = at
                    break
                if code in REFERRING:
                    values = fields_of(record)
                    yield values, [ref for _, ref in references_of(values)]
        except (JournalError, OSError) as error:
            raise JournalError(_explain(run, _reason(error))) from error
        if later:
            what = f"a later version of asyncflow wrote the record at byte {later}"
            raise JournalError(_cannot_tell(run, f"{what}; upgrade asyncflow"))
        if not running:
            _check_end(run, reader, end, summary)


def _check_end(run: StoredRun, reader: OpenJournal, end: int, summary: Summary | None) -> None:
    """Raise unless the journal ends at `end`, or a crash explains the bytes after it."""
    if summary is not None and end < summary.journal_bytes:
        raise JournalError(_explain(run, f"it ends at byte {end}, and was longer"))
    if end < reader.size() and not reader.is_torn(end):
        raise JournalError(_explain(run, f"the record at byte {end} is not what was written"))


def _summary(run: StoredRun) -> Summary | None:
    try:
        summary = Summary.read(run)
    except (JournalError, OSError):
        return None
    if summary is not None and (owner := other_owner(summary, run)):
        raise JournalError(_explain(run, f"its summary is that of {owner}"))
    return summary


def _reason(error: Exception) -> str:
    return reason_of(error) if isinstance(error, OSError) else str(error)


def _explain(run: StoredRun, reason: str) -> str:
    told = _cannot_tell(run, reason)
    if later_format(Path(run.journal_place)):
        return told
    name = _name(run)
    return (
        f"{told}. `asyncflow verify {name}` shows more, and after "
        f"`asyncflow rm {name}` the others can be collected"
    )


def _cannot_tell(run: StoredRun, reason: str) -> str:
    return (
        f"it is unknown what the run {_name(run)} needs, because its journal cannot be read: "
        f"{reason}; nothing was deleted"
    )


def _name(run: StoredRun) -> str:
    """The last two parts of its place: a removed run is not called by its pathspec."""
    return "/".join(run.place.rsplit("/", 2)[1:])
