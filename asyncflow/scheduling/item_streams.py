"""The generators over which foreachs of a run go on while they still yield.

A worker reports the items of a generator in chunks, and each chunk has a record in the journal. The
tasks for the items find their item there, and what they inherit in the first of these records.

A generator may be `ITEMS_AHEAD` items ahead of the tasks that have begun; then its worker waits for
a `YieldMore`. If nothing of the run but generators runs, and these wait, their tasks have no room
that they do not hold themselves, such as a place of a named limit. Then they may yield more, until
they end: no run waits for itself.
"""

from __future__ import annotations

import asyncio
from array import array
from bisect import bisect_right
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from asyncflow._support.conditions import SureTimer
from asyncflow.errors import TransitionError
from asyncflow.scheduling.facts import Lost
from asyncflow.values import ITEM_DIGEST_BYTES
from asyncflow.workers.messages import (
    ITEMS_AHEAD,
    AttemptKey,
    Failed,
    Succeeded,
    Yielded,
    YieldMore,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from asyncflow.events.types import TaskYielded
    from asyncflow.scheduling.facts import Fact

_STALLED_SECONDS: Final = 1.0
_REFUSED: Final = f"{TransitionError.__module__}.{TransitionError.__qualname__}"
_RULE: Final = "a generator must yield the same items in each attempt"


class _Stream:
    """What one task's generator has yielded so far."""

    __slots__ = (
        "ahead",
        "attempt",
        "count",
        "digests",
        "first",
        "granted",
        "offsets",
        "refused",
        "starts",
    )

    def __init__(self, offset: int) -> None:
        self.first = offset  # of its first record
        self.starts, self.offsets = array("I"), array("Q")  # of each record: first item, offset
        self.count = 0
        self.digests = bytearray()  # of each item
        self.attempt: AttemptKey | None = None  # the one that yields now
        self.refused: tuple[AttemptKey, str] | None = None  # one that yields other items, and why
        self.granted = ITEMS_AHEAD  # how many items that attempt may have yielded
        self.ahead = ITEMS_AHEAD

    def refuses(self, attempt: AttemptKey) -> bool:
        """Whether this attempt has yielded another item than one before it."""
        return self.refused is not None and self.refused[0] == attempt

    @property
    def why(self) -> str:
        """Why an attempt is refused."""
        return self.refused[1] if self.refused is not None else ""


def first_difference(digests: Sequence[int], others: Sequence[int]) -> int:
    """The number of the first item whose digests differ."""
    pairs = zip(digests, others, strict=False)
    at = next(number for number, (one, other) in enumerate(pairs) if one != other)
    return at // ITEM_DIGEST_BYTES


def _failed(report: Succeeded | Failed, why: str) -> Failed:
    ended = report.key, report.seconds
    return Failed(*ended, _REFUSED, why, "", may_retry=False, spooled=report.spooled)


class ItemStreams:
    """The generators of one run."""

    def __init__(
        self,
        begun: Callable[[int], int],
        is_stalled: Callable[[int], bool],
        send: Callable[[YieldMore], None],
        stop: Callable[[int, str], None],
        compare: Callable[[TaskYielded], None] | None = None,
    ) -> None:
        """Know of none.

        Args:
            begun: For how many items of this task's generator a task has begun.
            is_stalled: Whether tasks are ready, but none runs except so many that yield.
            send: Sends an order to the worker of its attempt.
            stop: Stops a task, for this reason.
            compare: Called with items that are announced for the first time in the run.
        """
        self._begun, self._is_stalled, self._send = begun, is_stalled, send
        self._stop, self._compare = stop, compare
        self._streams: dict[int, _Stream] = {}
        self._yielding: dict[int, _Stream] = {}
        self._timer: SureTimer | None = None

    def __bool__(self) -> bool:
        return bool(self._streams)

    # --- what comes in ---

    def takes(self, report: Yielded) -> bool:
        """Whether a report has items that no earlier attempt has announced."""
        stream = self._streams.get(report.key.task)
        if stream is None:
            return True
        return not stream.refuses(report.key) and report.first + report.number > stream.count

    def note(self, event: TaskYielded, offset: int) -> None:
        """Note items whose record is at this offset of the journal."""
        task = int(event.task_id)
        stream = self._streams.get(task)
        if stream is None:
            stream = self._streams[task] = _Stream(offset)
        if self._compare is not None:
            self._compare(event)
        stream.starts.append(stream.count)
        stream.offsets.append(offset)
        stream.digests += event.digests[ITEM_DIGEST_BYTES * (stream.count - event.index) :]
        stream.count = event.index + event.count

    def on_yielded(self, key: AttemptKey) -> None:
        """An attempt has begun to yield, or goes on."""
        stream = self._streams[key.task]
        if stream.refuses(key):
            return
        self._yielding[key.task] = stream
        if stream.attempt != key:
            stream.attempt, stream.granted = key, ITEMS_AHEAD
            self._grant(stream, self._begun(key.task) + stream.ahead)
        if self._timer is None:
            self._look_later()

    def on_ended(self, task: int) -> None:
        """An attempt has ended."""
        self._yielding.pop(task, None)

    def heard(self, fact: Fact) -> Fact:
        """Compare what an attempt has yielded with what was announced before it.

        Returns the fact, or a failure in its place if the attempt ends with other items.
        """
        stream = self._streams.get(fact.key.task)
        if stream is None:
            return fact
        if isinstance(fact, Yielded):
            self._check_items(stream, fact)
        elif isinstance(fact, Succeeded):
            return self._checked(stream, fact)
        elif stream.refuses(fact.key) and isinstance(fact, Failed):
            return _failed(fact, stream.why)._replace(traceback=fact.traceback)
        elif stream.refuses(fact.key) and isinstance(fact, Lost):
            return replace(fact, exception_type=_REFUSED, how=stream.why, may_retry=False)
        return fact

    def _check_items(self, stream: _Stream, report: Yielded) -> None:
        """Stop the attempt if one of its items is not the one that was announced."""
        begin = ITEM_DIGEST_BYTES * report.first
        announced = stream.digests[begin : begin + len(report.digests)]
        if report.digests.startswith(announced) or stream.refuses(report.key):
            return
        index = report.first + first_difference(announced, report.digests)
        why = f"item {index} is not the one that an earlier attempt has yielded: {_RULE}"
        stream.refused = report.key, why
        self._stop(report.key.task, why)

    @staticmethod
    def _checked(stream: _Stream, report: Succeeded) -> Succeeded | Failed:
        """The report of a success, or a failure if the attempt has yielded other items or fewer."""
        if stream.refuses(report.key):
            return _failed(report, stream.why)
        count = report.outcome.fanout or 0
        if count >= stream.count:
            return report
        why = f"this attempt has yielded {count} items, an earlier one {stream.count}: {_RULE}"
        return _failed(report, why)

    # --- where the items are ---

    def inherited_at(self, task: int) -> int | None:
        """Where the journal has what the tasks for a task's items inherit; None for no stream."""
        stream = self._streams.get(task)
        return None if stream is None else stream.first

    def item_at(self, task: int, index: int) -> int | None:
        """The offset of the record with this item; None if the task has no stream."""
        stream = self._streams.get(task)
        if stream is None:
            return None
        return stream.offsets[bisect_right(stream.starts, index) - 1]

    # --- how far they may go ---

    def on_taken(self) -> None:
        """Tasks have begun: let the generators go on that have come close to their limit."""
        for task, stream in self._yielding.items():
            self._grant(stream, self._begun(task) + stream.ahead)

    def _grant(self, stream: _Stream, upto: int) -> None:
        if stream.attempt is not None and upto - stream.granted >= stream.ahead // 2:
            stream.granted = upto
            self._send(YieldMore(stream.attempt, upto))

    def _look(self) -> None:
        if not self._yielding:
            self.close()
            return
        if self._is_stalled(len(self._yielding)):
            for task, stream in self._yielding.items():
                if stream.count >= stream.granted:
                    stream.ahead *= 2
                    self._grant(stream, self._begun(task) + stream.ahead)
        self._look_later()

    def _look_later(self) -> None:
        before = self._timer
        self._timer = SureTimer(asyncio.get_running_loop(), _STALLED_SECONDS, self._look)
        if before is not None:
            before.cancel()  # last: if an exception breaks this off, it rings again

    def close(self) -> None:
        """The run has ended, or nothing yields."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def __repr__(self) -> str:
        return f"<ItemStreams {len(self._yielding)} of {len(self._streams)} yielding>"


def offsets_of_stack(
    streams: ItemStreams,
    stack: Sequence[int],
    path: Sequence[int],
    ended_at: Callable[[int], int],
) -> list[int]:
    """For each foreach around a task, the offset of the record that has its item.

    A join has one more than indexes in its path: the foreach that it joins, which has ended.
    """
    if not streams:
        return [ended_at(splitter) for splitter in stack]
    offsets = []
    for level, splitter in enumerate(stack):
        at = streams.item_at(splitter, path[level]) if level < len(path) else None
        offsets.append(ended_at(splitter) if at is None else at)
    return offsets
