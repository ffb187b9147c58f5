"""Counts a run's tasks step by step, for progress bars. Events in, rows out.

How many tasks a step will have is known once the foreach steps before it have ended.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from asyncflow.events.types import (
    RunStarted,
    TaskCloned,
    TaskFailed,
    TaskStarted,
    TaskSucceeded,
    TaskYielded,
)
from asyncflow.flow.graph import Graph
from asyncflow.flow.node import Fanout

if TYPE_CHECKING:
    from collections.abc import Iterable

    from asyncflow.events.types import Event


@dataclass(slots=True)
class StepTally:
    """The tasks of one step, counted by state."""

    step: str
    expected: int = 0
    """How many tasks there will be, as far as is known."""
    running: int = 0
    done: int = 0
    failed: int = 0
    """Tasks that failed for good."""
    retried: int = 0
    """Attempts that failed and were followed by another."""
    seconds: float = 0.0
    """How long its tasks have taken in all, each in its last attempt."""
    fanned: int = 0
    """How many tasks of the next step its tasks have fanned out to."""

    @property
    def finished(self) -> bool:
        """Whether all known tasks have ended."""
        return self.done + self.failed >= self.expected > 0


class Tally:
    """The steps of one run in the order of the graph, each with its counts."""

    def __init__(self) -> None:
        self._graph: Graph | None = None
        self._steps: dict[str, StepTally] = {}
        self._yielded: dict[str, int] = {}  # by tasks whose generators still yield

    def count(self, batch: Iterable[Event]) -> None:
        """Count events, in their order."""
        for event in batch:
            match event:
                case TaskStarted():
                    self._steps[event.step].running += 1
                case TaskSucceeded() | TaskCloned():
                    self._done(event)
                case TaskFailed():
                    self._failed(event)
                case TaskYielded():
                    self._fan_out(event, event.index + event.count)
                case RunStarted():
                    self._graph = Graph.from_data(event.graph)
                    self._steps = {node.name: StepTally(node.name) for node in self._graph}

    def _done(self, event: TaskSucceeded | TaskCloned) -> None:
        step = self._steps[event.step]
        step.done += 1
        self._fan_out(event, event.fanout or 0)
        self._yielded.pop(event.task_id, None)
        if isinstance(event, TaskSucceeded):
            step.running -= 1
            step.seconds += event.seconds

    def _fan_out(self, event: TaskYielded | TaskSucceeded | TaskCloned, count: int) -> None:
        """Count the tasks that a task has fanned out to so far, in all."""
        self._steps[event.step].fanned += count - self._yielded.get(event.task_id, 0)
        self._yielded[event.task_id] = count

    def _failed(self, event: TaskFailed) -> None:
        if event.caught:  # the next event says how it ended
            return
        step = self._steps[event.step]
        step.running = max(0, step.running - 1)  # an attempt may fail before it began
        if event.will_retry:
            step.retried += 1
        else:
            step.failed += 1

    def rows(self) -> list[StepTally]:
        """Every step with its counts up to date."""
        if self._graph is None:
            return []
        for node in self._graph:
            step = self._steps[node.name]
            if node.joins:
                known = self._steps[node.joins].expected
            elif node.is_start or node.is_end:
                known = 1
            else:
                known = sum(self._leading_to(parent) for parent in self._graph.previous(node.name))
            step.expected = max(known, step.running + step.done + step.failed)
        return list(self._steps.values())

    def _leading_to(self, parent: str) -> int:
        step = self._steps[parent]
        match self._graph[parent].fanout if self._graph is not None else Fanout.NONE:
            case Fanout.FOREACH:
                return step.fanned
            case Fanout.CONDITION:
                return 0  # it may lead elsewhere
            case _:
                return step.expected
