"""Holds the reports of workers back until the values that they name are in the store.

With an object store, workers write values into the cache of their machine. Whoever receives their
reports uploads these values and only then passes the reports on: the engine for its own workers,
and the agent of a node for those of the node.

    executor ── HeldReports ── scheduler

A worker goes on meanwhile, and so do its other reports. The scheduler is told `Storing` for a task
whose step has ended. Reports of one worker that name values stay in order.

That a short task has begun is held as well, if its end has come with it: as two reports that come
together, they cost the scheduler half. It waits no longer than `HOLD_SECONDS`, however long the
upload takes.

What is held stays packed, if it came so: some thousand reports are held at a time, and as objects
Python's collector would look at them again and again.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from contextlib import suppress
from itertools import islice
from math import inf
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeGuard

from asyncflow._quick_classes import NamedTuple
from asyncflow._support.conditions import call_again
from asyncflow._support.timed_call import TimedCall
from asyncflow.errors import StoreError
from asyncflow.workers.messages import (
    CardsChanged,
    Failed,
    Garbled,
    NotStored,
    Started,
    Succeeded,
    ToStore,
    Wrote,
    Yielded,
    new_started,
    new_storing,
    report_of,
)
from asyncflow.workers.report_stream import (
    Reports,
    ReportStream,
    WholeAttempts,
    unpacked_fields,
    whole_attempts,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from asyncflow.errors import PoolError
    from asyncflow.store.value_interface import ValueUpload, ValueUploader
    from asyncflow.workers.interface import Kind, WorkerLink, WorkerListener
    from asyncflow.workers.messages import AttemptKey, ReportMessage

HOLD_SECONDS: Final = 0.5
"""How long it is held that a task has begun, at most."""
_SHORT_SECONDS: Final = 0.005
"""The longest task for which that is done."""
_LOST_SECONDS: Final = 1.0  # a call that is so late was lost
_IDLE_SECONDS: Final = 0.002
"""So long no worker has had an attempt when what they have written is uploaded without a wait."""
_TICK_SECONDS: Final = 0.002  # a timer may ring so much too early, by the loop's own clock

_NAMING: Final = (Succeeded, Failed, Yielded, CardsChanged)
_UNENDED: Final = (Yielded, CardsChanged)
"""Those of them after which the attempt goes on."""

_WRITTEN: Final = (ToStore, Wrote)
_USUAL: Final = frozenset((Started, ToStore))

_NamingReport = Succeeded | Failed | Yielded | CardsChanged
_Told = _NamingReport | Started
_Kept = _NamingReport | bytes | str
"""Packed if it came packed. Text is that of the item of the task whose success is next: that it has
begun was not told."""


class HasWorkers(Protocol):
    """An executor, or a pool."""

    @property
    def workers(self) -> Collection[WorkerLink]:
        """The present workers."""


class _Part(NamedTuple):
    """Something that was written, while it is being uploaded."""

    wrote: Wrote
    upload: ValueUpload

    def is_within(self, wrote: Wrote) -> bool:
        """Whether it is stored once that is."""
        mine = self.wrote
        return not mine.blobs and mine.segment == wrote.segment and mine.end <= wrote.end


class _Held:
    """Reports, and what has to be stored before they are passed on."""

    __slots__ = ("begun_since", "parts", "reports")

    def __init__(self, parts: Sequence[_Part]) -> None:
        self.reports: list[_Kept] = []
        self.parts = parts
        self.begun_since = inf  # when it was first held that one of the tasks has begun

    def take_begun(self) -> list[Started]:
        """That tasks have begun, as far as it is held: it is held no longer."""
        begun = [report for report in _unpacked(self.reports) if type(report) is Started]
        self.reports[:] = [each for each in self.reports if type(each) is not str]
        self.begun_since = inf
        return begun

    @property
    def is_ready(self) -> bool:
        return all(part.upload.is_done for part in self.parts)

    @property
    def error(self) -> str:
        return next((part.upload.error for part in self.parts if part.upload.error), "")


class _Queue:
    """The reports of a worker that are held."""

    __slots__ = ("exit", "held", "lost", "parts", "spoilt", "waits_for")

    def __init__(self) -> None:
        self.held: deque[_Held] = deque()
        self.parts: list[_Part] = []  # that are being uploaded: any report may name them
        self.waits_for: Sequence[_Part] | None = None  # the same, if no part was added since
        self.lost: list[Wrote] = []  # what could not be uploaded: any report may name it
        self.spoilt: dict[AttemptKey, str] = {}  # attempts with items that could not be stored
        self.exit: str | None = None

    def last_held(self) -> _Held:
        """The reports that are held until everything that is being uploaded now is stored."""
        if self.waits_for is None:
            self.waits_for = tuple(self.parts)
        if not (self.held and self.held[-1].parts is self.waits_for):
            self.held.append(_Held(self.waits_for))
        return self.held[-1]

    def take_begun(self, since: float) -> list[Started]:
        """That tasks have begun, as far as that has been held since this moment or before."""
        late = [held for held in self.held if held.begun_since <= since]
        return [report for held in late for report in held.take_begun()]

    @property
    def begun_since(self) -> float:
        """Since when it has been held that a task has begun; infinite if that is not held."""
        return min((held.begun_since for held in self.held), default=inf)

    def settle(self) -> None:
        """Note which uploads have ended."""
        for part in [part for part in self.parts if part.upload.is_done]:
            self.parts.remove(part)
            if part.upload.error:
                self.lost.append(part.wrote)

    @property
    def is_empty(self) -> bool:
        return not (self.held or self.parts or self.lost or self.spoilt)


class HeldReports:
    """Listens to workers in the place of another listener, and tells that one later."""

    def __init__(
        self,
        listener: WorkerListener,
        uploader: ValueUploader | None = None,
        *,
        holds_begun: bool = False,
    ) -> None:
        """Listen on the running event loop.

        An uploader is needed once a worker has something to upload. `holds_begun` says whether it
        may be held that a task has begun: not where this process can be lost while the listener
        goes on, which would have such a task run again.
        """
        self._listener = listener
        self._holds_begun = holds_begun
        self._late: TimedCall | None = None  # when that is told that has been held for long
        self._executor: HasWorkers | None = None
        self._hurry: TimedCall | None = None  # when the uploader is told that nothing more comes
        self._uploader: ValueUploader | None = None
        self._hears: WorkerLink | None = None  # the worker whose reports are being handled
        self._queues: dict[WorkerLink, _Queue] = {}  # of workers that have written something
        self._loop = asyncio.get_running_loop()
        if uploader is not None:
            self.use(uploader)
        call_again(self)

    def watch(self, executor: HasWorkers) -> None:
        """Have values uploaded without a wait when none of these workers has an attempt.

        Nobody will add anything then that could share the request, and a task may wait for them.
        """
        self._executor = executor

    def use(self, uploader: ValueUploader) -> None:
        """Have this upload what workers write."""
        self._uploader = uploader
        uploader.listen(self._on_stored)

    def __repr__(self) -> str:
        held = sum(len(queue.held) for queue in self._queues.values())
        return f"<HeldReports {held} of {len(self._queues)} workers>"

    # --- what workers say -----------------------------------------------------------------------

    def on_reports(self, worker: WorkerLink, reports: Sequence[ReportMessage]) -> None:
        """Pass on what names nothing that has to be uploaded first."""
        before, self._hears = self._hears, worker
        try:
            self._hear(worker, reports)
        except BaseException as error:
            self._broken_off(error)
            raise
        self._hears = before

    def _broken_off(self, error: BaseException | None = None) -> None:
        """Tell that reports may be lost, if some were being handled: an exception broke it off."""
        if self._hears is not None:
            by = "an exception" if error is None else f"{type(error).__name__}: {error}"
            self._listener.on_reports(self._hears, [Garbled(by)])
            self._hears = None  # last: else it is told again

    def _hear(self, worker: WorkerLink, reports: Sequence[ReportMessage]) -> None:
        queue = self._queues.get(worker)
        if queue is None:
            if not any(isinstance(report, _WRITTEN) for report in reports):
                self._listener.on_reports(worker, reports)
                return
            queue = self._queues[worker] = _Queue()
        passed = self._without_held(queue, reports)
        if passed:
            self._listener.on_reports(worker, passed)
        self._release(worker, queue)
        if queue.held and self._executor is not None and worker.is_idle:
            self._hurry_soon()

    def _without_held(
        self, queue: _Queue, reports: Sequence[ReportMessage]
    ) -> Sequence[ReportMessage]:
        """Upload what was written, hold what names it, and return the rest.

        A few calls for each of them: short tasks send thousands in a second.
        """
        if _USUAL.issuperset(map(type, reports)):
            written = [each for each in reports if type(each) is ToStore]
            if not written:
                return reports
            if len({each.segment for each in written}) == 1:
                self._upload(queue, Wrote(written[-1].segment, written[-1].end, ()))
                held, waiting = self._held_now(queue), self._waiting_bytes
                if self._holds_begun:
                    return self._without_begun(held, reports, waiting)
                held.reports.extend([each.report for each in written])
                return [
                    new_storing((each.key, waiting)) if type(each) is ToStore else each
                    for each in reports
                ]
        # What else a task reports is not told before it has begun.
        begun = queue.take_begun(self._loop.time()) if self._holds_begun else []
        return [*begun, *self._without_held_of_any(queue, reports)]

    def _without_begun(
        self, held: _Held, reports: Sequence[ReportMessage], waiting: int
    ) -> list[ReportMessage]:
        """Hold the usual reports, also that tasks have begun whose ends have come with it."""
        kept = held.reports
        passed: list[ReportMessage] = []
        begun: Started | None = None
        holds = False
        for report in reports:
            if type(report) is ToStore:
                if begun is not None:
                    if begun.key == report.key and report.seconds <= _SHORT_SECONDS:
                        kept.append(begun.item)
                        holds = True
                    else:
                        passed.append(begun)
                    begun = None
                kept.append(report.report)
                passed.append(new_storing((report.key, waiting)))
            elif type(report) is Started:
                if begun is not None:
                    passed.append(begun)
                begun = report
        if begun is not None:
            passed.append(begun)
        if holds and held.begun_since == inf:
            held.begun_since = self._loop.time()
            if self._late is None:
                self._tell_late_at(held.begun_since + HOLD_SECONDS)
        return passed

    def _without_held_of_any(
        self, queue: _Queue, reports: Sequence[ReportMessage]
    ) -> Sequence[ReportMessage]:
        """Do the same one by one, whatever they are."""
        # What came together was written by now: the farthest end stands for the others.
        ends = {each.segment: each.end for each in reports if _is_in_segment(each)}
        passed: list[ReportMessage] = []
        held: list[_Kept] | None = None
        waiting = 0
        for report in reports:
            if isinstance(report, _WRITTEN):
                if isinstance(report, Wrote) and report.blobs:
                    self._upload(queue, report)
                    held = None
                elif (end := ends.pop(report.segment, None)) is not None:
                    self._upload(queue, Wrote(report.segment, end, ()))
                    held = None
                if isinstance(report, Wrote):
                    continue
            elif not isinstance(report, _NAMING) or (held is None and queue.is_empty):
                passed.append(report)
                continue
            if held is None:
                held, waiting = self._held_now(queue).reports, self._waiting_bytes
            held.append(report.report if isinstance(report, ToStore) else report)
            if not isinstance(report, _UNENDED):
                passed.append(new_storing((report.key, waiting)))
        return passed

    @property
    def _waiting_bytes(self) -> int:
        return self._uploader.waiting_bytes if self._uploader is not None else 0

    def _upload(self, queue: _Queue, wrote: Wrote) -> None:
        if self._uploader is None:
            message = f"nobody uploads {wrote.segment or 'values'}"
            raise StoreError(message)
        part = _Part(wrote, self._uploader.add(*wrote))
        if queue.parts and queue.parts[-1].is_within(wrote):
            queue.parts.pop()  # who waits for the new part waits for this one
        queue.parts.append(part)
        queue.waits_for = None

    def _held_now(self, queue: _Queue) -> _Held:
        """Where to put reports that may name anything that was written so far."""
        if queue.lost:
            lost, queue.lost = queue.lost, []
            for wrote in lost:
                self._upload(queue, wrote)
        return queue.last_held()

    def on_exit(self, worker: WorkerLink, how: str) -> None:
        """A worker is gone: tell that after what it has reported."""
        queue = self._queues.get(worker)
        if queue is None or not queue.held:
            self._queues.pop(worker, None)
            self._listener.on_exit(worker, how)
        else:
            queue.exit = how

    def on_stopped(self, worker: WorkerLink, how: str) -> None:
        """A worker was stopped by a signal such as SIGSTOP."""
        self._listener.on_stopped(worker, how)

    def on_continued(self, worker: WorkerLink) -> None:
        """A stopped worker goes on."""
        self._listener.on_continued(worker)

    def on_refused(self, kind: Kind, error: PoolError) -> None:
        """Pass it on."""
        self._listener.on_refused(kind, error)

    def on_room(self) -> None:
        """More workers may be started than before."""
        self._listener.on_room()

    def on_broken(self, error: PoolError) -> None:
        """No worker can be started any more."""
        self._listener.on_broken(error)

    # --- what is stored -------------------------------------------------------------------------

    def _on_stored(self) -> None:
        """Called in a thread of the uploader."""
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self.call_again)

    def call_again(self) -> None:
        """Pass on what had to wait."""
        self._broken_off()
        for worker, queue in list(self._queues.items()):
            self._release(worker, queue)
        if any(queue.held for queue in self._queues.values()):
            self._hurry_soon()
        if self._late is not None and self._late.is_overdue(self._loop.time(), HOLD_SECONDS):
            self._tell_late()  # its call was lost

    def _hurry_soon(self) -> None:
        """Have the uploader told that nothing more comes, if in a moment that is so."""
        now = self._loop.time()
        is_coming = self._hurry is not None and not self._hurry.is_overdue(now, _LOST_SECONDS)
        if not is_coming and self._is_idle():
            self._hurry = TimedCall(self._loop, now + _IDLE_SECONDS, self._hurry_now)

    def _hurry_now(self) -> None:
        self._hurry = None
        if self._uploader is not None and self._is_idle():
            self._uploader.hurry()

    def _is_idle(self) -> bool:
        executor = self._executor
        return executor is not None and all(worker.is_idle for worker in executor.workers)

    def _tell_late_at(self, when: float) -> None:
        self._late = TimedCall(self._loop, when, self._tell_late)

    def _tell_late(self) -> None:
        """Tell which tasks have begun, as far as that has been held for long."""
        if self._late is not None:
            self._late.cancel()
            self._late = None
        late, first = self._loop.time() - HOLD_SECONDS + _TICK_SECONDS, inf
        for worker, queue in list(self._queues.items()):
            begun = queue.take_begun(late)
            first = min(first, queue.begun_since)
            if begun:
                self._listener.on_reports(worker, begun)
        if first < inf and self._late is None:
            self._tell_late_at(first + HOLD_SECONDS)

    def _release(self, worker: WorkerLink, queue: _Queue) -> None:
        """Pass on the reports of a worker whose values are stored by now."""
        before, self._hears = self._hears, worker
        try:
            self._release_stored(worker, queue)
        except BaseException as error:
            self._broken_off(error)
            raise
        self._hears = before

    def _release_stored(self, worker: WorkerLink, queue: _Queue) -> None:
        told: list[ReportMessage | WholeAttempts] = []
        while queue.held and queue.held[0].is_ready:
            told += self._told(queue, queue.held.popleft())
        queue.settle()
        if told:
            self._listener.on_reports(worker, Reports(told))
        if queue.exit is not None and not queue.held:
            self._queues.pop(worker, None)
            self._listener.on_exit(worker, queue.exit)
        elif queue.is_empty:
            self._queues.pop(worker, None)

    @staticmethod
    def _told(queue: _Queue, held: _Held) -> Sequence[ReportMessage | WholeAttempts]:
        error, kept = held.error, held.reports
        if not (error or queue.spoilt):
            return _together(kept)
        return [
            told for report in _unpacked(kept) for told in HeldReports._spoilt(error, queue, report)
        ]

    @staticmethod
    def _spoilt(error: str, queue: _Queue, report: _Told) -> list[ReportMessage]:
        """What is passed on of a report, if something could not be stored."""
        if isinstance(report, Started):
            return [report]
        if isinstance(report, Yielded):
            if error:
                queue.spoilt.setdefault(report.key, error)
            return [] if report.key in queue.spoilt else [report]
        if isinstance(report, CardsChanged):
            return [] if error else [report]  # nobody misses what the next one has as well
        error = queue.spoilt.pop(report.key, error)
        names_values = isinstance(report, Succeeded) or report.outcome is not None
        if error and names_values:
            return [NotStored(report.key, error)]
        if error and isinstance(report, Failed):
            report = report._replace(cards=b"")
        return [report]


def _is_in_segment(report: ReportMessage) -> TypeGuard[ToStore | Wrote]:
    """Whether it says that something was written to a segment, and to nothing else."""
    return isinstance(report, ToStore) or (isinstance(report, Wrote) and not report.blobs)


_PAIRS: Final = re.compile(b"(?:ib)+")
_LETTERS: Final[dict[type, int]] = {str: ord("i"), bytes: ord("b")}  # an item, and what is packed


def _together(kept: Sequence[Any]) -> list[ReportMessage | WholeAttempts]:
    """The reports, with those together that say of tasks that they have begun and succeeded.

    The task that a worker has begun when its reports are read is told at once, so there is hardly a
    read without a success that is alone.
    """
    fields = iter(unpacked_fields(b"".join([each for each in kept if type(each) is bytes])))
    letters, at = bytes([_LETTERS.get(type(each), 0) for each in kept]), 0
    told: list[Any] = []
    for found in _PAIRS.finditer(letters):
        begin, end = found.span()
        told += [report_of(next(fields)) if type(e) is bytes else e for e in kept[at:begin]]
        told.append(whole_attempts(kept[begin:end:2], [*islice(fields, (end - begin) // 2)]))
        at = end
    told += [report_of(next(fields)) if type(each) is bytes else each for each in kept[at:]]
    return told


def _unpacked(kept: Sequence[_Kept]) -> list[_Told]:
    """The reports, as objects."""
    packed = [each for each in kept if type(each) is bytes]
    unpacked: list[Any] = ReportStream().feed(b"".join(packed))
    if len(packed) == len(kept):
        return unpacked
    told: list[Any] = []
    rest, item = iter(unpacked), None
    for each in kept:
        if type(each) is str:
            item = each
            continue
        report: Any = next(rest) if type(each) is bytes else each
        if item is not None:
            told.append(new_started((report.key, item)))
            item = None
        told.append(report)
    return told
