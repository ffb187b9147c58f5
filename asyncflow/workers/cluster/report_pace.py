"""When an agent has to tell its driver what workers report: at once, or with what comes next.

Each message to a driver costs both of them some hundred microseconds, whatever is in it. So while
all that has news are workers with many short tasks, their reports wait for more of them: at most
`PACE_SECONDS`, and before half of the tasks that such a worker still has should have ended. So no
worker waits for orders because of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from asyncflow.workers.messages import Failed, GaveBack, Succeeded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncflow.workers.messages import ReportMessage

PACE_SECONDS: Final = 0.1
"""The longest time for which the reports of a busy worker wait."""
_LEAST_TASKS: Final = 4  # fewer keep no worker busy for long enough
_SMOOTHING: Final = 0.3
_OVER: Final = Succeeded | Failed | GaveBack


class _Busy:
    """What is known of how busy a worker is."""

    __slots__ = ("each", "left", "since")

    def __init__(self) -> None:
        self.left = 0  # attempts that it was sent, and that have not ended
        self.each = 0.0  # seconds that one takes, all in all; 0 while unknown
        self.since = 0.0  # when it was last heard of


class ReportPace:
    """How long the reports of each worker of an agent may wait. No I/O and no clock."""

    def __init__(self) -> None:
        self._workers: dict[int, _Busy] = {}  # by token

    def sent(self, token: int, attempts: int, now: float) -> None:
        """A worker gets so many attempts more."""
        busy = self._workers.setdefault(token, _Busy())
        if not busy.left:
            busy.since = now
        busy.left += attempts

    def patience(self, token: int, reports: Sequence[ReportMessage], now: float) -> float:
        """For how many seconds these reports of a worker may wait; 0 if they may not."""
        busy = self._workers.get(token)
        if busy is None:
            return 0.0
        ended = sum(isinstance(report, _OVER) for report in reports)
        busy.left = max(0, busy.left - ended)
        if ended:
            each = (now - busy.since) / ended
            busy.each += _SMOOTHING * (each - busy.each) if busy.each else each
            busy.since = now
        if busy.left < _LEAST_TASKS:
            return 0.0
        return min(PACE_SECONDS, busy.each * busy.left / 2)

    def forget(self, token: int) -> None:
        """A worker is gone."""
        self._workers.pop(token, None)

    def __repr__(self) -> str:
        return f"<ReportPace of {len(self._workers)} workers>"
