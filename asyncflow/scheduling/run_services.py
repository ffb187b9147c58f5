"""What the engine offers to every run: threads for the disk, settings, counters."""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING, Final

from asyncflow._quick_classes import dataclass
from asyncflow.scheduling.loop_budget import LoopBudget
from asyncflow.scheduling.statistics import Meter

if TYPE_CHECKING:
    from concurrent.futures import Executor as ThreadExecutor

BACKLOG_BYTES: Final = 1 << 22  # output that may wait for the journal before workers are paused


@dataclass(frozen=True, slots=True, kw_only=True)
class RunServices:
    """Made once for an engine, on its event loop, and shared by all its runs."""

    disk: ThreadExecutor
    """Threads that write journals and do other short work on the disk."""
    syncs: ThreadExecutor
    """Threads that wait for fsync."""
    sync_seconds: float
    """How long a journal may stay unsynced, unless the run is durable."""
    grace_seconds: float
    """The time that tasks have to end when their run is cancelled."""
    finish_running: bool = False
    """Whether the running tasks of a run may finish after another task of it has failed."""
    loop_budget: LoopBudget = field(default_factory=LoopBudget)
    """Shares the event loop between the runs and the application."""
    meter: Meter = field(default_factory=Meter)
    """Counts the events and bytes that were written to journals."""
    _expected: dict[str, dict[str, float]] = field(default_factory=dict)

    def expected(self, flow: str) -> dict[str, float]:
        """The seconds that tasks of each step take, as measured; shared by the flow's runs."""
        return self._expected.setdefault(flow, {})
