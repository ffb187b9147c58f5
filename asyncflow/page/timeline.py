"""The timeline of a run: a bar for each attempt, or for many the numbers of those that ran.

Times are whole milliseconds since the run's start. Times in which nothing ran may be cut out: then
the rest is drawn side by side, in pieces.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from asyncflow.client.attempt_times import BAD, STATUSES, Busy, times_of
from asyncflow.page.answers import ROOM_BYTES, AskedWrongly, size_of
from asyncflow.values import Status

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from asyncflow.client.attempt_times import AttemptTimes
    from asyncflow.client.run_files import RunRecord

MOST_BARS: Final = 2_000
_LEAST_GAP: Final = 0.02
"""Of the time that is shown: a shorter time without a task is not cut out."""
_LEAST_GAP_MILLISECONDS: Final = 1_000
_MOST_GAPS: Final = 40
_LEAST_COLUMNS: Final = 50


@dataclass(frozen=True, slots=True)
class TimelineChoice:
    """Which part of a run is drawn, and how wide."""

    begin: int | None = None
    end: int | None = None
    columns: int = 800
    steps: Sequence[str] = ()
    last_only: bool = False
    cut_idle: bool = False


class BusyPiece(NamedTuple):
    """A time, and where it is drawn: fractions of the width."""

    begin: int
    end: int
    left: float
    right: float


def timeline(record: RunRecord, choice: TimelineChoice, now: int) -> dict[str, Any]:
    """What is drawn of a run; `now` is the time, in milliseconds since the run's start.

    Raises:
        JournalError: The run is damaged.
    """
    times = times_of(record)
    status = record.status()
    over = max(now, times.last) if status is Status.RUNNING else max(_finished(record), times.last)
    begin = 0 if choice.begin is None else choice.begin
    end = over if choice.end is None else choice.end
    if end < begin:
        raise AskedWrongly(400, "to is to be later than from")
    end = max(end, begin + 1)
    steps = _numbers(times, choice.steps)
    pieces = _pieces(times, begin, end) if choice.cut_idle else [BusyPiece(begin, end, 0.0, 1.0)]
    rows = list(_rows_within(times, choice, begin, end, steps))
    answer: dict[str, Any] = {
        "from": begin,
        "to": end,
        "now": over,
        "attempts": len(rows),
        "steps": times.steps,
        "pieces": [[*piece] for piece in pieces],
        "bars": None,
        "columns": None,
    }
    if len(rows) <= MOST_BARS:
        unended = "running" if status is Status.RUNNING else "interrupted"
        answer["bars"] = [_bar(times, row, unended) for row in rows]
    else:
        answer["columns"] = _columns(times, choice, pieces, steps)
    if size_of(answer) > ROOM_BYTES:
        answer["steps"] = times.steps[: _LEAST_COLUMNS * 10]
    return answer


def _finished(record: RunRecord) -> int:
    summary = record.summary()
    return max(summary.finished - summary.started, 0) // 1000


def _numbers(times: AttemptTimes, names: Sequence[str]) -> list[int]:
    if not names:
        return list(range(len(times.steps)))
    unknown = [name for name in names if name not in times.steps]
    if unknown:
        raise AskedWrongly(404, f"the run has no step {unknown[0]!r:.100}")
    return sorted({times.steps.index(name) for name in names})


def _rows_within(
    times: AttemptTimes, choice: TimelineChoice, begin: int, end: int, steps: Sequence[int]
) -> Iterator[int]:
    wanted = set(steps)
    begins, ends, step = times.begin, times.end, times.step
    for row in times.rows(last_only=choice.last_only):
        if begins[row] <= end and (ends[row] < 0 or ends[row] >= begin) and step[row] in wanted:
            yield row


def _bar(times: AttemptTimes, row: int, unended: str) -> list[Any]:
    ended = times.end[row]
    return [
        times.task[row],
        times.step[row],
        times.attempt[row],
        times.begin[row],
        None if ended < 0 else ended,
        unended if ended < 0 else STATUSES[times.state[row]],
        times.index[row],
    ]


# --- what is cut out ----------------------------------------------------------------------------


def _pieces(times: AttemptTimes, begin: int, end: int) -> list[BusyPiece]:
    """The times in which something ran, from `begin` to `end`."""
    least = max(_LEAST_GAP * (end - begin), _LEAST_GAP_MILLISECONDS)
    gaps = [gap for gap in _idle(times.busy(), begin, end) if gap[1] - gap[0] >= least]
    gaps = sorted(sorted(gaps, key=lambda gap: gap[0] - gap[1])[:_MOST_GAPS])
    kept, at = [], begin
    for first, last in gaps:
        if first > at:
            kept.append((at, first))
        at = last
    if at < end or not kept:
        kept.append((at, end))
    total = sum(last - first for first, last in kept) or 1
    pieces, left = [], 0.0
    for first, last in kept:
        right = left + (last - first) / total
        pieces.append(BusyPiece(first, last, round(left, 6), round(min(right, 1.0), 6)))
        left = right
    return pieces


def _idle(busy: Busy, begin: int, end: int) -> Iterator[tuple[int, int]]:
    """The times within these bounds in which nothing ran."""
    moments, running = busy.moments, busy.running
    since = begin if not moments or moments[0] > begin else None
    for at in range(bisect_left(moments, begin), bisect_right(moments, end)):
        if running[at] == 0:
            since = moments[at]
        elif since is not None:
            yield since, moments[at]
            since = None
    first = bisect_right(moments, begin) - 1
    if (
        since is None
        and first >= 0
        and first == bisect_right(moments, end) - 1
        and not running[first]
    ):
        since = begin
    if since is not None:
        yield since, end


# --- columns ------------------------------------------------------------------------------------


def _columns(
    times: AttemptTimes, choice: TimelineChoice, pieces: Sequence[BusyPiece], steps: Sequence[int]
) -> dict[str, Any]:
    """The numbers for each step; with fewer columns than were asked for, if they were too many."""
    count = choice.columns
    while True:
        bounds = _bounds(pieces, count)
        rows = [row for number in steps if (row := _step_columns(times, number, choice, bounds))]
        answer = {"count": len(bounds), "steps": rows}
        if size_of(answer) <= ROOM_BYTES or count <= _LEAST_COLUMNS:
            return answer
        count = max(count * 2 // 3, _LEAST_COLUMNS)


def _bounds(pieces: Sequence[BusyPiece], count: int) -> list[tuple[int, int]]:
    """When each column begins and ends."""
    bounds = []
    for piece in pieces:
        own = max(round(count * (piece.right - piece.left)), 1)
        length = piece.end - piece.begin
        edges = [piece.begin + length * number // own for number in range(own + 1)]
        bounds += list(pairwise(edges))
    return bounds


def _step_columns(
    times: AttemptTimes, step: int, choice: TimelineChoice, bounds: Sequence[tuple[int, int]]
) -> dict[str, Any] | None:
    busy = _busy_last(times, step) if choice.last_only else times.busy(step)
    running = _highest(busy, bounds)
    failed = _failures(times, step, choice, bounds)
    if not running and not failed:
        return None
    return {"step": times.steps[step], "running": running, "failed": failed}


def _highest(busy: Busy, bounds: Sequence[tuple[int, int]]) -> list[list[int]]:
    """The highest number that ran in each column, as `[first column, how many, number]`."""
    moments, running = busy.moments, busy.running
    numbers, first = [], 0
    for begin, end in bounds:
        first = bisect_right(moments, begin, first)
        last = bisect_left(moments, end, first)
        before = running[first - 1] if first else 0
        numbers.append(max(before, max(running[first:last], default=0)))
        first = max(last - 1, 0)
    found, at = [], 0
    for number, same in groupby(numbers):
        length = sum(1 for _ in same)
        if number:
            found.append([at, length, number])
        at += length
    return found


def _busy_last(times: AttemptTimes, step: int) -> Busy:
    rows = [row for row in times.rows(last_only=True) if times.step[row] == step]
    ended = [row for row in rows if times.end[row] >= 0]
    return Busy(
        [times.begin[row] for row in rows],
        [max(times.end[row], times.begin[row] + 1) for row in ended],
    )


def _failures(
    times: AttemptTimes, step: int, choice: TimelineChoice, bounds: Sequence[tuple[int, int]]
) -> list[list[int]]:
    """How many attempts failed in each column."""
    begins = [begin for begin, _ in bounds]
    counts: dict[int, int] = {}
    state, at = times.state, -1
    while True:
        try:
            at = state.index(BAD, at + 1)
        except ValueError:
            break
        if times.step[at] != step or (choice.last_only and times.row_of[times.task[at]] != at):
            continue
        column = bisect_right(begins, times.end[at]) - 1
        if column >= 0 and times.end[at] <= bounds[column][1]:
            counts[column] = counts.get(column, 0) + 1
    return [[column, count] for column, count in sorted(counts.items())]
