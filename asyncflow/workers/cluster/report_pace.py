"""When an agent has to tell its driver what workers report: at once, or with what comes next.

Each message to a driver costs both of them some hundred microseconds, whatever is in it. So while
all that has news are workers with enough to do, their reports wait for more of them: at most
`PACE_SECONDS`, and before half of what such a worker still has should have been done. So no worker
waits for orders because of it. Orders that come meanwhile are more to do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from asyncflow.workers.messages import Failed, GaveBack, Succeeded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncflow.workers.messages import ReportMessage

PACE_SECONDS: Final = 0.1
"""The longest time for which the reports of a busy worker wait."""
_LEAST_TASKS: Final = 4  # fewer may end sooner than they should, all of them
_SMOOTHING: Final = 0.3
_OVER: Final = Succeeded | Failed | GaveBack


class _Busy:
    """What is known of how busy a worker is."""

    __slots__ = ("each", "left", "since")

    def __init__(self) -> None:
        self.left = 0  # attempts that it was sent, and that have not ended
        self.each = 0.0  # seconds that one takes, all in all; 0 while unknown
        self.since = 0.0  # when it was last heard of

    def half(self, now: float) -> float:
        """When half of what it has should have been done; `now` if it may soon have nothing."""
        return now + self.each * self.left / 2 if self.left >= _LEAST_TASKS else now


class _Waiting:
    """The reports of a worker that wait for more."""

    __slots__ = ("due", "latest")

    def __init__(self, due: float, latest: float) -> None:
        self.due, self.latest = due, latest


class ReportPace:
    """How long the reports of each worker of an agent may wait. No I/O and no clock."""

    def __init__(self) -> None:
        self._workers: dict[int, _Busy] = {}  # by token
        self._waiting: dict[int, _Waiting] = {}  # likewise

    def sent(self, token: int, attempts: int, now: float) -> None:
        """A worker gets so many attempts more: what it has reported can wait for longer."""
        busy = self._workers.setdefault(token, _Busy())
        if not busy.left:
            busy.since = now
        busy.left += attempts
        waiting = self._waiting.get(token)
        if waiting is not None:
            waiting.due = min(max(waiting.due, busy.half(now)), waiting.latest)

    def reported(self, token: int, reports: Sequence[ReportMessage], now: float) -> None:
        """A worker has reported something that was not told yet."""
        busy = self._workers.get(token) or _Busy()
        ended = sum(isinstance(report, _OVER) for report in reports)
        busy.left = max(0, busy.left - ended)
        if ended:
            each = (now - busy.since) / ended
            busy.each += _SMOOTHING * (each - busy.each) if busy.each else each
            busy.since = now
        waiting = self._waiting.get(token)
        if waiting is None:
            latest = now + PACE_SECONDS
            self._waiting[token] = _Waiting(min(busy.half(now), latest), latest)
        elif busy.left < _LEAST_TASKS:
            waiting.due = now

    @property
    def due(self) -> float | None:
        """When what was reported has to be told; None if nothing was."""
        return min((waiting.due for waiting in self._waiting.values()), default=None)

    def told(self) -> None:
        """All that was reported is told."""
        self._waiting.clear()

    def forget(self, token: int) -> None:
        """A worker is gone."""
        self._workers.pop(token, None)
        self._waiting.pop(token, None)

    def __repr__(self) -> str:
        return f"<ReportPace of {len(self._workers)} workers>"
