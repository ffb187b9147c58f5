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
from typing import TYPE_CHECKING, Final

from asyncflow.errors import TransitionError
from asyncflow.workers.messages import ITEMS_AHEAD, AttemptKey, Failed, Succeeded, YieldMore

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from asyncflow.workers.messages import Yielded

_STALLED_SECONDS: Final = 1.0


class _Stream:
    """What one task's generator has yielded so far."""

    __slots__ = ("ahead", "attempt", "count", "first", "granted", "offsets", "starts")

    def __init__(self, offset: int) -> None:
        self.first = offset  # of its first record
        self.starts, self.offsets = array("I"), array("Q")  # of each record: first item, offset
        self.count = 0
        self.attempt: AttemptKey | None = None  # the one that yields now
        self.granted = ITEMS_AHEAD  # how many items that attempt may have yielded
        self.ahead = ITEMS_AHEAD


class ItemStreams:
    """The generators of one run."""

    def __init__(
        self,
        begun: Callable[[int], int],
        is_stalled: Callable[[int], bool],
        send: Callable[[YieldMore], None],
    ) -> None:
        """Know of none.

        Args:
            begun: For how many items of this task's generator a task has begun.
            is_stalled: Whether tasks are ready, but none runs except so many that yield.
            send: Sends an order to the worker of its attempt.
        """
        self._begun, self._is_stalled, self._send = begun, is_stalled, send
        self._streams: dict[int, _Stream] = {}
        self._yielding: dict[int, _Stream] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __bool__(self) -> bool:
        return bool(self._streams)

    # --- what comes in ---

    def takes(self, report: Yielded) -> bool:
        """Whether a report has items that no earlier attempt has announced."""
        stream = self._streams.get(report.key.task)
        return stream is None or report.first + report.number > stream.count

    def note(self, report: Yielded, offset: int) -> None:
        """Note a report whose record is at this offset of the journal."""
        stream = self._streams.get(report.key.task)
        if stream is None:
            stream = self._streams[report.key.task] = _Stream(offset)
        stream.starts.append(stream.count)
        stream.offsets.append(offset)
        stream.count = report.first + report.number

    def on_yielded(self, key: AttemptKey) -> None:
        """An attempt has begun to yield, or goes on."""
        stream = self._streams[key.task]
        self._yielding[key.task] = stream
        if stream.attempt != key:
            stream.attempt, stream.granted = key, ITEMS_AHEAD
            self._grant(stream, self._begun(key.task) + stream.ahead)
        if self._timer is None:
            self._look_later()

    def on_ended(self, task: int) -> None:
        """An attempt has ended."""
        self._yielding.pop(task, None)

    def checked(self, report: Succeeded) -> Succeeded | Failed:
        """The report of a success, or a failure if the attempt has yielded too few items."""
        stream = self._streams.get(report.key.task)
        if stream is None or (report.outcome.fanout or 0) >= stream.count:
            return report
        name = f"{TransitionError.__module__}.{TransitionError.__qualname__}"
        message = (
            f"this attempt has yielded {report.outcome.fanout} items, an earlier one "
            f"{stream.count}: a generator must yield the same items in each attempt"
        )
        return Failed(
            report.key, report.seconds, name, message, "", may_retry=False, spooled=report.spooled
        )

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
        self._timer = None
        if not self._yielding:
            return
        if self._is_stalled(len(self._yielding)):
            for task, stream in self._yielding.items():
                if stream.count >= stream.granted:
                    stream.ahead *= 2
                    self._grant(stream, self._begun(task) + stream.ahead)
        self._look_later()

    def _look_later(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(_STALLED_SECONDS, self._look)

    def close(self) -> None:
        """The run has ended."""
        if self._timer is not None:
            self._timer.cancel()

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
