"""Turns facts about tasks into the journal's records, and into events for subscribers.

A `Recorder` knows the run's running attempts, numbers its events, and adds each record to the run's
index. It writes nothing: it is given the journal offset of its next record, and returns the
records.
"""

from __future__ import annotations

import time
from itertools import repeat
from math import inf
from typing import TYPE_CHECKING, Any, Final, TypedDict

from asyncflow.events.output_lines import count_pieces
from asyncflow.events.packing import journalled, pack_values
from asyncflow.events.records import LOGGED, STARTED, SUCCEEDED
from asyncflow.events.selection import OutputChunk, RecordedEvents
from asyncflow.events.types import (
    CardUpdated,
    TaskCloned,
    TaskFailed,
    TaskRetried,
    TaskYielded,
    from_microseconds,
    let_resolve,
)
from asyncflow.scheduling.commands import BeginItems, RecordedTasks
from asyncflow.scheduling.facts import Lost
from asyncflow.store.frames import PREFIX_BYTES, add_frames, prefix
from asyncflow.workers.messages import (
    UNKNOWN_USAGE,
    CardsChanged,
    Failed,
    Logged,
    Started,
    Succeeded,
    Yielded,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from asyncflow.events.selection import Publication
    from asyncflow.events.types import Event, Resolve
    from asyncflow.scheduling.commands import BeginTask, CloneTask, RetryTask, Verdict
    from asyncflow.scheduling.facts import Fact, Ran
    from asyncflow.scheduling.item_streams import ItemStreams
    from asyncflow.store.run_index import RunIndex
    from asyncflow.values import Outcome
    from asyncflow.workers.messages import Usage

OUTPUT_BYTES: Final = 1 << 18  # in a batch: far below 1 ms to copy
_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""A clock that cannot be set, and that goes on while the machine sleeps."""
_SMOOTHING: Final = 0.3  # the weight of the latest task in the average of a step's durations


def elapsed() -> int:
    """Microseconds since some moment, by a clock that cannot be set; for differences."""
    return time.clock_gettime_ns(_CLOCK) // 1000


class _Identity(TypedDict):
    flow: str
    run_id: str
    seq: int
    time: datetime


class RunningAttempt:
    """A running attempt: the data that its next events need."""

    __slots__ = (
        "attempt",
        "cards",
        "failed",
        "item",
        "log",
        "node",
        "number",
        "parents",
        "path",
        "pid",
        "seconds",
        "step",
        "task_id",
        "usage",
    )

    def __init__(
        self,
        step: str,
        task_id: int,
        path: tuple[int, ...],
        attempt: int = 0,
        parents: tuple[int, ...] = (),
    ) -> None:
        self.step, self.task_id, self.path, self.parents = step, task_id, path, parents
        self.attempt = attempt
        """The attempt's number at the worker."""
        self.number = attempt
        """The attempt's number in the journal; a stand-in has that of the attempt that it stands
        for."""
        self.pid = 0
        self.node = ""
        self.item = ""  # its item of the foreach, as a short text
        self.log = 0  # the journal offset of its last output
        self.failed = 0  # the journal offset of its failure that was caught
        self.seconds = 0.0  # how long it had taken then
        self.usage: Usage | None = None  # what it had used then
        self.cards = b""  # what was last said to be on its cards


class Batch:
    """Records that go to the journal in one write, and their events."""

    def __init__(self, at: int, now: int) -> None:
        self.at = at
        """The journal offset of the next record."""
        self.frames: list[bytes] = []
        """Of each record its length and checksum, and then the record."""
        self.events: list[Event | RecordedTasks] = []
        """The events that the plan has to know."""
        self.news: list[Publication] = []
        """For subscribers: all events, and output."""
        self._last: RecordedEvents | None = None  # of the news, as long as records may be added
        self.unsettled: list[Sequence[Any]] = []
        """The fields of records that the index is to know: see `Recorder.settle`."""
        self.places: list[int] = []
        """The offsets of these records."""
        self.now = from_microseconds(now)
        self.microseconds = now
        self.output_bytes = 0

    def add(self, record: bytes) -> int:
        """Add a record; return its offset."""
        at, self._last = self.at, None
        self.frames += prefix(record), record
        self.at = at + PREFIX_BYTES + len(record)
        return at

    def record(
        self,
        recorded: Sequence[Sequence[Any]],
        flow: str,
        run_id: str,
        resolve: Resolve | None,
        *,
        ran: Sequence[int] = (),
    ) -> list[int]:
        """Add the records with these fields, about attempts that begin or end well.

        `ran` are the tasks, if the records are those of new tasks that have begun and ended.
        Returns the offset of each record.
        """
        if self._last is None:
            self._last = RecordedEvents(flow, run_id, resolve)
            self.news.append(self._last)
        self._last.values += recorded
        self.events.append(RecordedTasks(recorded, ran))
        *places, self.at = add_frames(self.frames, map(pack_values, recorded), self.at)
        return places

    def data(self) -> bytes:
        """The bytes for the journal."""
        return b"".join(self.frames)


class Recorder:
    """The attempts of one run, between the workers' reports and the journal."""

    def __init__(
        self,
        flow: str,
        run_id: str,
        index: RunIndex,
        streams: ItemStreams,
        expected: dict[str, float] | None = None,
        resolve: Resolve | None = None,
    ) -> None:
        """`resolve` is for `artifacts` of events whose records do not say them all."""
        self._flow, self._run_id, self._index = flow, run_id, index
        self._resolve = resolve
        self.table = index.table
        """The journal offsets of each task."""
        self.seq = 1  # RunStarted was the first
        self._last_time = (
            0  # of a record, in microseconds since 1970; that of output is never needed
        )
        self.expected = {} if expected is None else expected
        """The smoothed seconds that a task takes, for each step that ended at least once; may be
        shared."""
        self.streams = streams
        """What generators of the run have yielded."""
        self.failed_items: dict[str, str] = {}
        """The items of tasks that failed for good, as texts, by task id."""
        self._attempts: dict[int, RunningAttempt | BeginItems] = {}
        """By task id; of a packet for several tasks, the packet until the task has begun."""
        self._caught: dict[
            int, RunningAttempt
        ] = {}  # failed, and waiting for a stand-in to pass that on

    def __len__(self) -> int:
        return len(self._attempts)

    # --- attempts ---

    def open(self, task: BeginTask) -> None:
        """Add an attempt that is about to be sent to a worker."""
        attempt = self._caught.get(task.task_id)
        if attempt is None:
            what = task.step, task.task_id, task.path, task.attempt, task.parents
            attempt = RunningAttempt(*what)
        attempt.attempt = task.attempt
        self._attempts[task.task_id] = attempt

    def open_items(self, items: BeginItems) -> None:
        """Add the attempts of several tasks that are about to be sent to a worker."""
        tasks = range(items.first, items.first + items.number)
        self._attempts.update(dict.fromkeys(tasks, items))

    def running(self) -> list[str]:
        """The tasks that have begun and not ended, as `step/task`, in the order of their start."""
        return [
            f"{each.step}/{each.task_id}"
            for each in self._attempts.values()
            if isinstance(each, RunningAttempt) and each.pid
        ]

    def drop(self, task_id: int) -> None:
        """Remove an attempt that was not begun after all."""
        self._attempts.pop(task_id, None)

    def get(self, task_id: int) -> RunningAttempt | None:
        """A running attempt; None if it has ended."""
        attempt = self._attempts.get(task_id)
        if not isinstance(attempt, BeginItems):
            return attempt
        items, path = attempt, (*attempt.outer, attempt.item + task_id - attempt.first)
        attempt = self._attempts[task_id] = RunningAttempt(items.step, task_id, path)
        return attempt

    def expected_seconds(self, task_id: int) -> float:
        """How long a task of this one's step usually takes; infinite if none has ended."""
        attempt = self.get(task_id)
        return self.expected.get(attempt.step, inf) if attempt is not None else inf

    def on_started(self, tasks: Iterable[int], pid: int, node: str) -> None:
        """Note that these tasks have begun in this process of this node."""
        for task in tasks:
            attempt = self.get(task)
            if attempt is not None:
                attempt.pid, attempt.node = pid, node

    # --- facts to records ---

    def record_plain(
        self, facts: Iterable[Started | Succeeded], batch: Batch, time: int | None = None
    ) -> None:
        """Do what `record` does for facts of these two kinds: nearly all of a wide run.

        `time` is when they came in, if that is not the time of the batch. Times never go back: it
        counts no further than to the last record.
        """
        attempts = self._attempts
        now = self._last_time = batch.microseconds if time is None else max(time, self._last_time)
        recorded: list[Sequence[Any]] = []
        for fact in facts:
            _, task, number = fact.key
            attempt = attempts.get(task)
            if type(attempt) is not RunningAttempt:
                attempt = self.get(task)
            if attempt is None or number != attempt.attempt:
                continue
            if isinstance(fact, Succeeded):
                recorded.append(self._succeeded(attempt, fact, fact.outcome, now))
                continue
            attempt.item = fact.item
            if attempt.failed:  # a stand-in is not an attempt
                continue
            self.seq += 1
            head = STARTED, self.seq, now, attempt.step, task, attempt.number, attempt.path
            recorded.append((*head, attempt.pid, attempt.parents, attempt.node, fact.item))
        if recorded:
            self._add_recorded(recorded, batch)

    def _add_recorded(self, recorded: list[Sequence[Any]], batch: Batch) -> None:
        batch.places += batch.record(recorded, self._flow, self._run_id, self._resolve)
        batch.unsettled += recorded

    def record_ran(self, ran: Ran, batch: Batch) -> None:
        """Do what `on_started` and `record_plain` do for these tasks.

        If all come from one packet, as nearly always, no `RunningAttempt` is made for them.
        """
        (pid, node, (begun, ended)), attempts, tasks = ran, self._attempts, ran.tasks
        packets = [*map(attempts.get, tasks)]
        packet, number = packets[0], len(tasks)
        if self.streams or type(packet) is not BeginItems or packets.count(packet) < number:
            self.on_started(tasks, pid, node)
            self.record_plain(ran.attempts.reports(), batch)
            return
        self.settle(batch)
        now, first = batch.microseconds, self.seq + 1
        step, outer, before = packet.step, packet.outer, packet.item - packet.first
        indexes = [task + before for task in tasks]
        paths: Sequence[tuple[int, ...]] = [(*outer, index) for index in indexes]
        texts = [item for _, _, item in begun]
        for task in tasks:
            del attempts[task]
        recorded: list[Any] = [None] * (2 * number)
        seqs = range(first, first + 2 * number)
        same = repeat(now), repeat(step)
        recorded[::2] = zip(
            *(repeat(STARTED), seqs[::2], *same, tasks, repeat(0), paths, repeat(pid)),
            *(repeat(()), repeat(node), texts),
            strict=False,
        )
        recorded[1::2] = [
            (
                *(SUCCEEDED, seq, now, step, task, 0, path, manifest, seconds, pid),
                *(fanout, items, 0, 0, choice, cpu, memory, cards),
            )
            for seq, task, path, (_, _, seconds, outcome, _, (cpu, memory)) in zip(
                seqs[1::2], tasks, paths, ended, strict=True
            )
            for manifest, fanout, items, choice, cards in (outcome,)
        ]
        self._expect(step, ran.attempts.seconds)
        self.seq, self._last_time = seqs[-1], now
        places = batch.record(recorded, self._flow, self._run_id, self._resolve, ran=tasks)
        self._index.note_ran(places, step, tasks, indexes, now, texts, ran.attempts.seconds)

    def _expect(self, step: str, took: Sequence[float]) -> None:
        """Tasks of a step have taken so many seconds, one after the other."""
        smoothed = self.expected.get(step, took[0])
        for seconds in took:
            smoothed += _SMOOTHING * (seconds - smoothed)
        self.expected[step] = smoothed

    def settle(self, batch: Batch) -> None:
        """Have the index know all records of a batch."""
        if batch.places:
            self._index.note_recorded(batch.places, batch.unsettled)
            batch.places, batch.unsettled = [], []

    def record(self, fact: Fact, batch: Batch, *, verdict: Verdict | None) -> None:
        """Add what a fact means to a batch.

        A fact about an attempt that has ended already means nothing.
        """
        attempt = self.get(fact.key.task)
        if attempt is None or fact.key.attempt != attempt.attempt:
            return
        match fact:
            case Started() | Succeeded():
                self.record_plain((fact,), batch)
            case Yielded():
                self._yielded(attempt, fact, batch)
            case Logged():
                self._logged(attempt, fact.stream, fact.data, batch)
            case CardsChanged():
                self._cards_changed(attempt, fact.cards, batch)
            case Failed():
                described = fact.exception_type, fact.message, fact.traceback
                used = fact.usage
                attempt.cards = fact.cards or attempt.cards
                self._failed(attempt, described, fact.seconds, batch, verdict, fact.left, used)
                if fact.outcome is not None:
                    ended = self._succeeded(attempt, fact, fact.outcome, batch.microseconds)
                    self._add_recorded([ended], batch)
            case Lost():
                described = fact.exception_type, fact.how, fact.traceback
                self._failed(attempt, described, fact.seconds, batch, verdict)

    def identity(self, batch: Batch) -> _Identity:
        """The fields of the run's next event that all events have."""
        self.seq += 1
        self._last_time = batch.microseconds
        return {
            "flow": self._flow,
            "run_id": self._run_id,
            "seq": self.seq,
            "time": batch.now,
        }

    def retried(self, command: RetryTask, batch: Batch) -> None:
        """Record that another attempt is ordered."""
        event = TaskRetried(
            **self.identity(batch),
            step=command.step,
            task_id=str(command.task_id),
            attempt=command.attempt,
            path=command.path,
            after_seconds=command.after_seconds,
        )
        self.add(event, batch)

    def cloned(
        self,
        clone: CloneTask,
        outcome: Outcome,
        origin: tuple[str, int],
        batch: Batch,
        item: str = "",
    ) -> int:
        """Record that a finished task is taken over; return the offset of the record.

        `origin` are the run and the id of the task that was taken over.
        """
        event = TaskCloned(
            **self.identity(batch),
            step=clone.step,
            task_id=str(clone.task_id),
            attempt=0,
            path=clone.path,
            **outcome._asdict(),
            origin_run_id=origin[0],
            origin_task_id=str(origin[1]),
            parents=clone.parents,
            item=item,
        )
        at = self.add(event, batch)
        head = clone.step, clone.task_id, 0, clone.path
        self._index.note(at, event.code, head, batch.microseconds, item=item)
        return at

    def add(self, event: Event, batch: Batch) -> int:
        """Add an event; return the offset of its record."""
        self.settle(batch)
        record, event = journalled(event)
        let_resolve(event, self._resolve)
        batch.events.append(event)
        batch.news.append(event)
        return batch.add(record)

    def _yielded(self, attempt: RunningAttempt, report: Yielded, batch: Batch) -> None:
        if not self.streams.takes(report):
            self.streams.on_yielded(report.key)
            return
        event = TaskYielded(
            **self.identity(batch),
            step=attempt.step,
            task_id=str(attempt.task_id),
            attempt=attempt.number,
            path=attempt.path,
            manifest=report.manifest or b"\x80",
            index=report.first,
            count=report.number,
            items=report.items,
            digests=report.digests,
        )
        self.streams.note(event, self.add(event, batch))
        self.streams.on_yielded(report.key)

    def _succeeded(
        self, attempt: RunningAttempt, report: Succeeded | Failed, outcome: Outcome, now: int
    ) -> Sequence[Any]:
        """The attempt has ended: the fields of its record."""
        step, task, seconds = attempt.step, attempt.task_id, report.seconds
        self._end(task)
        if attempt.failed:
            self._caught.pop(task, None)
        self._expect(step, (seconds,))
        self.seq += 1
        manifest, fanout, items, choice, cards = outcome
        return (
            *(SUCCEEDED, self.seq, now, step, task, attempt.number, attempt.path, manifest),
            *(attempt.seconds or seconds, attempt.pid, fanout, items, attempt.log),
            *(attempt.failed, choice, *(attempt.usage or report.usage), cards or attempt.cards),
        )

    def _failed(
        self,
        attempt: RunningAttempt,
        described: tuple[str, str, str],
        seconds: float,
        batch: Batch,
        verdict: Verdict | None,
        left: bytes = b"",
        usage: Usage = UNKNOWN_USAGE,
    ) -> None:
        self._end(attempt.task_id)
        exception_type, message, traceback = described
        event = TaskFailed(
            **self.identity(batch),
            step=attempt.step,
            task_id=str(attempt.task_id),
            attempt=attempt.number,
            path=attempt.path,
            exception_type=exception_type,
            message=message,
            traceback=traceback,
            will_retry=verdict == "retry",
            seconds=seconds,
            pid=attempt.pid,
            log=attempt.log,
            caught=verdict == "catch",
            manifest=left or b"\x80",
            cpu_seconds=usage.cpu_seconds,
            peak_memory=usage.peak_memory,
            item=attempt.item,
            cards=attempt.cards,
        )
        at = self._note(attempt, event, batch)
        if attempt.item and not (event.will_retry or event.caught):
            self.failed_items[event.task_id] = attempt.item
        if event.caught:
            attempt.failed, attempt.seconds, attempt.usage = at, seconds, usage
            self._caught[attempt.task_id] = attempt

    def _cards_changed(self, attempt: RunningAttempt, cards: bytes, batch: Batch) -> None:
        attempt.cards = cards
        event = CardUpdated(
            **self.identity(batch),
            step=attempt.step,
            task_id=str(attempt.task_id),
            attempt=attempt.number,
            path=attempt.path,
            cards=cards,
            pid=attempt.pid,
        )
        self.settle(batch)
        record, told = journalled(event)
        batch.news.append(told)  # the plan need not know
        batch.add(record)

    def _end(self, task_id: int) -> None:
        self._attempts.pop(task_id, None)
        if self.streams:
            self.streams.on_ended(task_id)

    def _note(self, attempt: RunningAttempt, event: TaskFailed, batch: Batch) -> int:
        """Add the failure of an attempt; return the offset of its record."""
        at = self.add(event, batch)
        self._index.note(
            at,
            event.code,
            (attempt.step, attempt.task_id, attempt.number, attempt.path),
            batch.microseconds,
            item=attempt.item,
            seconds=event.seconds,
            stopped=event.was_stopped,
            caught=event.caught,
        )
        return at

    # --- output ---

    def _logged(self, attempt: RunningAttempt, stream: int, data: bytes, batch: Batch) -> None:
        if not data:
            return
        self.settle(batch)
        seq, count = self.seq + 1, count_pieces(data)
        head = LOGGED, seq, batch.microseconds, attempt.step, attempt.task_id, attempt.number
        values = (*head, stream, attempt.pid, data, attempt.log)
        attempt.log = batch.add(pack_values(values))
        batch.news.append(OutputChunk(values, seq, self._flow, self._run_id, count=count))
        batch.output_bytes += len(data)
        self.seq += count

    def __repr__(self) -> str:
        return f"<Recorder of {self._flow}/{self._run_id}: {self.seq} events, {len(self)} running>"
