"""Checks one run: every record of its journal, its summary and its index.

Nothing is unpickled, so no code of a user runs.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final
from zlib import crc32

from asyncflow.errors import JournalError, RecordError
from asyncflow.events.manifests import unpack_told
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
    manifest_in,
    output_before,
    references_of,
    step_of,
    task_of,
)
from asyncflow.store.journal import (
    FIRST_RECORD,
    HEADER,
    JournalReader,
    is_being_written,
    later_format,
)
from asyncflow.store.layout import sign_of_beginning
from asyncflow.store.local_store import LocalRun
from asyncflow.store.mailbox import MAILBOX, messages_in
from asyncflow.store.manifests import JournalManifests
from asyncflow.store.run_index import Summary, other_owner
from asyncflow.store.run_tags import TAGS, changed_tags
from asyncflow.store.run_times import TIMES, AttemptTable
from asyncflow.store.task_table import TaskTable, most_table_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from asyncflow.store.maintenance.findings import Damage, Findings
    from asyncflow.store.maintenance.value_checker import ValueChecker

_PROGRESS_EVERY: Final = 512  # records


class RunChecker:
    """Checks one run: its journal, its summary, its index, and the values that they name."""

    def __init__(
        self,
        findings: Findings,
        values: ValueChecker,
        folder: Path,
        pathspec: str,
        *,
        flow: str,
        removed: bool = False,
    ) -> None:
        self._findings, self._values = findings, values
        self._folder, self._pathspec, self._flow = folder, pathspec, flow
        self._removed = removed
        self._run = LocalRun.at(folder)
        self._path = folder / "journal"
        self._running = is_being_written(self._path)
        self._table = TaskTable()
        self._steps: list[str] = []
        self._tasks_at: dict[int, int] | None = None  # by the offsets of their records
        self._holes: list[tuple[int, int, Damage]] = []  # if the journal cannot be read
        self._ended = False
        self._begun = False

    def check(self) -> None:
        """Check all of it, and report the findings."""
        summary = self._check_summary()
        self._check_tags()
        self._check_mailbox()
        try:
            with JournalReader(self._path) as journal:
                self._check_journal(journal, summary)
        except FileNotFoundError:
            if summary is not None:
                self._findings.damage(self._path, "the file is gone", self._pathspec)
            elif not self._removed:
                self._note_unbegun()
        except JournalError:
            if number := later_format(self._path):
                what = f"a later version of asyncflow wrote it, in format {number}; not verified"
                self._findings.note(self._path, f"{what}: upgrade asyncflow for that")
                return
            what = f"it does not begin with {HEADER.decode().strip()!r}"
            self._findings.damage(self._path, what, self._pathspec)
        except OSError as error:
            what = f"it cannot be read: {error.strerror}"
            self._findings.damage(self._path, what, self._pathspec)

    # --- summary and index ---

    def _check_summary(self) -> Summary | None:
        try:
            summary = Summary.read(self._run)
        except RecordError as error:
            what = f"{error.__cause__}; delete it, and the journal is read instead"
            self._findings.damage(self._folder / "summary", what, self._pathspec)
            return None
        except OSError as error:
            what = f"it cannot be read: {error.strerror}"
            self._findings.damage(self._folder / "summary", what, self._pathspec)
            return None
        if summary is not None and (owner := other_owner(summary, self._run)):
            self._findings.damage(
                self._folder / "summary",
                f"it is that of {owner}: rename the folder back to that",
                self._pathspec,
            )
        if summary is not None:
            self._check_index(summary)
            self._check_times(summary)
        return summary

    def _check_tags(self) -> None:
        try:
            changed_tags(self._run)
        except RecordError as error:
            what = f"{error.__cause__}; delete it, and the run has the tags of its start"
            self._findings.damage(self._folder / TAGS, what, self._pathspec)
        except OSError as error:
            what = f"it cannot be read: {error.strerror}"
            self._findings.damage(self._folder / TAGS, what, self._pathspec)

    def _check_mailbox(self) -> None:
        try:
            messages_in(self._run, 0)
        except RecordError as error:
            what = f"{error.__cause__ or error}; delete it: only a running run is sent messages"
            self._findings.damage(self._folder / MAILBOX, what, self._pathspec)
        except OSError as error:
            what = f"it cannot be read: {error.strerror}"
            self._findings.damage(self._folder / MAILBOX, what, self._pathspec)

    def _check_index(self, summary: Summary) -> None:
        path = self._folder / "index"
        self._steps = [name for name, _ in summary.steps]
        advice = "delete it, and the journal is read instead"
        try:
            size = path.stat().st_size
            table = TaskTable.read(self._run, most=most_table_bytes(self._journal_bytes()))
        except OSError as error:
            self._findings.damage(path, f"it cannot be read: {error.strerror}", self._pathspec)
            return
        self._findings.verified.size += len(table.dump())
        if len(table.dump()) != size or crc32(table.dump()) != summary.index_checksum:
            self._findings.damage(path, f"it is not what was written; {advice}", self._pathspec)
        else:
            self._table = table

    def _check_times(self, summary: Summary) -> None:
        try:
            AttemptTable.read(self._run, summary.journal_bytes, len(summary.steps))
        except RecordError as error:
            what = f"{error}; delete it, and the journal is read instead"
            self._findings.damage(self._folder / TIMES, what, self._pathspec)
        except OSError as error:
            what = f"it cannot be read: {error.strerror}"
            self._findings.damage(self._folder / TIMES, what, self._pathspec)

    def _journal_bytes(self) -> int:
        try:
            return self._path.stat().st_size
        except OSError:
            return 0

    # --- the journal ---

    def _check_journal(self, journal: JournalReader, summary: Summary | None) -> None:
        end = FIRST_RECORD
        manifests = JournalManifests(journal.read_one, self._run.journal_file)
        while True:
            try:
                for at, record, after in journal.read_from(end):
                    self._take(at, record, manifests)
                    end = after
                break
            except JournalError:
                bad, end = end, journal.find_record(end + 1) or journal.size()
                self._note_hole(bad, end)
        self._findings.verified.size += journal.size()
        self._check_end(journal, end, summary)

    def _note_hole(self, begin: int, end: int) -> None:
        what = f"the record at byte {begin} is not what was written"
        damage = self._findings.damage(self._path, what)
        self._holes.append((begin, end, damage))
        for pathspec in self._tasks_between(begin, end):
            damage.add(pathspec)
        if begin == FIRST_RECORD:
            damage.add(self._pathspec)

    def _check_end(self, journal: JournalReader, end: int, summary: Summary | None) -> None:
        size = journal.size()
        if summary is not None and end < summary.journal_bytes and not self._holes:
            what = f"it ends at byte {end}, but had {summary.journal_bytes} when the run ended"
            tasks = self._tasks_between(end, summary.journal_bytes)
            self._findings.damage(self._path, what, self._pathspec, *tasks)
        elif end < size and (self._ended or summary is not None):
            what = f"{size - end} bytes from byte {end} on are not what was written"
            self._findings.damage(self._path, what, self._pathspec)
        elif end < size and not self._running and not journal.is_torn(end):
            what = (
                f"the last record, at byte {end}, is not what was written; readers skip it, "
                "and a resume repeats the work that it recorded"
            )
            self._findings.damage(self._path, what, self._pathspec)
        elif end < size and not self._running:
            self._findings.note(
                self._path,
                f"the run was interrupted while it wrote: {size - end} bytes from byte {end} on "
                "are the beginning of a record. This is not damage; the record was never "
                "announced",
            )
        for _, _, damage in self._holes:  # no later record or index entry named the affected tasks
            if not damage.count:
                damage.add(self._pathspec)
        if not self._begun and not self._holes and summary is None and not self._running:
            self._note_unbegun()

    def _note_unbegun(self) -> None:
        """Report a run without a first record, unless it is just starting."""
        sign = sign_of_beginning(self._folder)
        if not sign:
            self._findings.note(self._folder, "unreferenced: a run that never began")
        elif not self._has_begun_since():
            what = f"it has no first event, but {sign} exists"
            self._findings.damage(self._path, what, self._pathspec)

    def _has_begun_since(self) -> bool:
        if is_being_written(self._path):
            return True
        try:
            with JournalReader(self._path) as journal:
                return any(True for _ in journal.read_from())
        except (JournalError, OSError):
            return False

    def _take(self, at: int, record: bytes, manifests: JournalManifests) -> None:
        """Process one record whose checksum is right."""
        code = -1
        self._begun = True
        with self._blaming(at):
            code = code_of(record)
            values = fields_of(record)
            if code in REFERRING or (self._holes and code in OF_TASKS):
                self._follow(values)
            if code in REFERRING:
                self._check_manifest(at, record, values, manifests)
        self._ended = self._ended or code in ENDINGS
        if code >= 0 and code not in KNOWN:
            self._findings.note(
                self._path, f"a later version wrote the record at byte {at}; not followed"
            )
        if not at % _PROGRESS_EVERY:
            self._findings.show_progress()

    @contextmanager
    def _blaming(self, at: int) -> Iterator[None]:
        try:
            yield
        except RecordError as error:
            what = f"the record at byte {at} is not an event: {error}"
            self._findings.damage(self._path, what, self._named_at(at))

    def _named_at(self, at: int) -> str:
        """The task that begins or ends with a record, according to the index; else the run."""
        if self._tasks_at is None:
            self._tasks_at = {}
            for task in range(1, len(self._table) + 1):
                entry = self._table[task]
                self._tasks_at[entry.started] = self._tasks_at[entry.ended] = task
        task = self._tasks_at.get(at, 0)
        return self._indexed(task) if task else self._pathspec

    def _indexed(self, task: int) -> str:
        """The pathspec of a task, according to the index."""
        step = self._table[task].step
        return f"{self._pathspec}/{self._steps[step] if step < len(self._steps) else '?'}/{task}"

    def _follow(self, values: list[Any]) -> None:
        code = values[0]
        run = self._pathspec
        owner = self._owner(values)
        self._link_output(values, owner)
        if code not in REFERRING or self._removed:
            return
        if code in HANDING_ON:
            self._findings.verified.tasks += 1
        owner = f"{run}/parameters" if code == RUN_STARTED else owner
        for name, ref in references_of(values):
            self._values.check_ref(self._flow, ref, f"{owner}/{name}")

    def _check_manifest(
        self, at: int, record: bytes, values: list[Any], manifests: JournalManifests
    ) -> None:
        """Check that a manifest which changes another one finds that."""
        manifest = manifest_in(values)
        try:
            manifests.check(at, record, manifest)
        except RecordError:
            if not self._holes:
                raise
            base = unpack_told(manifest).base
            within = [damage for begin, end, damage in self._holes if begin <= base < end]
            damage = within[0] if within else self._holes[0][2]  # further down
            damage.add(self._owner(values))

    def _owner(self, values: list[Any]) -> str:
        if values[0] == RUN_STARTED:
            return self._pathspec
        return f"{self._pathspec}/{step_of(values)}/{task_of(values)}"

    def _link_output(self, values: list[Any], owner: str) -> None:
        """Name the task whose output lies in a gap of the journal, if this record refers to it."""
        if not self._holes or values[0] == RUN_STARTED:
            return
        before = output_before(values)
        for begin, end, damage in self._holes:
            if before and begin <= before < end:
                damage.add(
                    f"{owner} ({'output' if values[0] != FAILED else 'output of a failure'})"
                )

    def _tasks_between(self, begin: int, end: int) -> Iterator[str]:
        """The tasks that have a record in this range of the journal, according to the index."""
        for task in range(1, len(self._table) + 1):
            entry = self._table[task]
            if begin <= entry.started < end or begin <= entry.ended < end:
                yield self._indexed(task)
