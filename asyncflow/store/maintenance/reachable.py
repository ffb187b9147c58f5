"""Finds the files of a store that are needed, from the journals alone.

Safe beside runs that run and start. Whether a run is running is checked before its journal is read.
If it was not, its whole journal is known; if it was, none of its own files counts as unneeded. A
run that starts meanwhile refers only to files that are young or belong to a run that was there
before.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from enum import Enum
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
from asyncflow.store.journal import FIRST_RECORD, JournalReader, is_being_written, later_format
from asyncflow.store.layout import sign_of_beginning
from asyncflow.store.local_store import LocalRun
from asyncflow.store.run_index import Summary, other_owner
from asyncflow.values import Place

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from asyncflow.store.layout import Layout, Listing
    from asyncflow.values import ArtifactRef

_SEGMENT, _BLOB = int(Place.SEGMENT), int(Place.BLOB)  # see asyncflow.store.artifacts


_SILENT_SECONDS: Final = 1.0


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

    def __init__(self, layout: Layout, *, removing: Iterable[tuple[str, str]] = ()) -> None:
        """Start empty; runs in `removing` count as removed."""
        self._layout = layout
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

    def read_all(self) -> None:
        """Read every journal of the store.

        Raises:
            JournalError: A journal is damaged, so what it refers to is unknown.
            StoreError: Flows or runs cannot be found, or something among them is neither.
        """
        for flow in self._flows():
            for run_id in self._runs(flow):
                self.read_run(flow, run_id)
            self.read_removed(flow)

    def _flows(self) -> list[str]:
        return _clear("the runs of the store need", self._layout.list_flows)

    def _runs(self, flow: str) -> list[str]:
        return _clear(f"the runs of {flow} need", lambda: self._layout.list_runs(flow))

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
        listing = self._layout.list_runs(flow)
        if listing.strays:  # one of them may be a run that was renamed
            self._obscure.add(flow)
        for run_id in listing.names:
            run = flow, run_id
            if run not in self._removing and self.stages.get(run) is not Stage.OVER:
                try:
                    self.read_run(flow, run_id, if_resumed=True)
                except JournalError:
                    self._obscure.add(flow)

    def read_run(self, flow: str, run_id: str, *, if_resumed: bool = False) -> Stage:
        """Read one journal; with `if_resumed`, only if the run has resumed another.

        Raises:
            JournalError: It is damaged.
        """
        folder = self._layout.run_dir(flow, run_id)
        stage = self._read_run(flow, run_id, if_resumed=if_resumed)
        if stage is Stage.UNBEGUN and sign_of_beginning(folder):
            # The run may have begun and ended since.
            stage = self._read_run(flow, run_id, if_resumed=if_resumed)
            if stage is Stage.UNBEGUN and (sign := sign_of_beginning(folder)):
                what = f"it has no first event, but {sign} exists"
                raise JournalError(_explain(folder, what))
        self.stages[flow, run_id] = stage
        return stage

    def _read_run(self, flow: str, run_id: str, *, if_resumed: bool) -> Stage:
        folder = self._layout.run_dir(flow, run_id)
        running = is_being_written(folder / "journal")  # first, as the module's docstring says
        begun = False
        for values, refs in _referring(folder, running=running):
            if values[0] == RUN_STARTED:
                begun = True
                self._note_start(flow, run_id, values, running=running)
                if if_resumed and not origin_of(values).run_id:
                    break
            self._note(flow, values, refs)
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
            folder = self._layout.removed_dir(flow, run_id)
            if (flow, run_id) in self._removing and not folder.exists():
                folder = self._layout.run_dir(flow, run_id)
            if run_id in seen:
                continue
            seen.add(run_id)
            if _has_journal(folder):
                waiting += self._read_removed(flow, run_id, folder)

    def _read_removed(self, flow: str, run_id: str, folder: Path) -> set[str]:
        origins = set()
        whole = (flow, run_id) in self.resuming
        try:
            for values, refs in _referring(folder, running=False):
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
        return file in {"journal", "summary", "index"} and (
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


def _has_journal(folder: Path) -> bool:
    """Whether there is a journal, readable or not.

    Raises:
        JournalError: That cannot be found out.
    """
    try:
        return (folder / "journal").exists()
    except OSError as error:
        raise JournalError(_explain(folder, reason_of(error))) from error


def resumers(layout: Layout, flow: str) -> dict[str, str]:
    """The runs of a flow from which a running run is taking tasks over, each with that run.

    If such an origin was interrupted before it had taken over all of its own origin, that one is
    included, too.

    Raises:
        JournalError: The journal of a running run, or of such an origin, is damaged.
    """
    found: dict[str, str] = {}
    for run_id in layout.runs(flow):
        folder = layout.run_dir(flow, run_id)
        if is_being_written(folder / "journal"):
            origin = _origin_of(folder, running=True)
            while origin and origin not in found:
                found[origin] = run_id
                origin = _origin_of(layout.run_dir(flow, origin), running=False)
    return found


def _origin_of(folder: Path, *, running: bool) -> str:
    """The run that a run resumes; empty if it resumes none, or has not begun."""
    for values, _ in _referring(folder, running=running):
        return origin_of(values).run_id
    return ""


def _referring(folder: Path, *, running: bool) -> Iterator[tuple[list[object], list[ArtifactRef]]]:
    """The records of a journal that refer to values, and these values."""
    summary = _summary(folder)
    try:
        reader = JournalReader(folder / "journal")
    except FileNotFoundError:
        if summary is not None:
            raise JournalError(_explain(folder, "it is gone")) from None
        return
    except (JournalError, OSError) as error:
        raise JournalError(_explain(folder, _reason(error))) from error
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
            raise JournalError(_explain(folder, _reason(error))) from error
        if later:
            what = f"a later version of asyncflow wrote the record at byte {later}"
            raise JournalError(_cannot_tell(folder, f"{what}; upgrade asyncflow"))
        if not running:
            _check_end(folder, reader, end, summary)


def _check_end(folder: Path, reader: JournalReader, end: int, summary: Summary | None) -> None:
    """Raise unless the journal ends at `end`, or a crash explains the bytes after it."""
    if summary is not None and end < summary.journal_bytes:
        raise JournalError(_explain(folder, f"it ends at byte {end}, and was longer"))
    if end < reader.size() and not reader.is_torn(end):
        raise JournalError(_explain(folder, f"the record at byte {end} is not what was written"))


def _summary(folder: Path) -> Summary | None:
    run = LocalRun.at(folder)
    try:
        summary = Summary.read(run)
    except (JournalError, OSError):
        return None
    if summary is not None and (owner := other_owner(summary, run)):
        raise JournalError(_explain(folder, f"its summary is that of {owner}"))
    return summary


def _reason(error: Exception) -> str:
    return reason_of(error) if isinstance(error, OSError) else str(error)


def _explain(folder: Path, reason: str) -> str:
    told = _cannot_tell(folder, reason)
    if later_format(folder / "journal"):
        return told
    run = f"{folder.parent.name}/{folder.name}"
    return (
        f"{told}. `asyncflow verify {run}` shows more, and after "
        f"`asyncflow rm {run}` the others can be collected"
    )


def _cannot_tell(folder: Path, reason: str) -> str:
    run = f"{folder.parent.name}/{folder.name}"
    return (
        f"it is unknown what the run {run} needs, because its journal cannot be read: {reason}; "
        "nothing was deleted"
    )
