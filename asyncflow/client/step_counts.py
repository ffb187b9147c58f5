"""Counts a run's tasks step by step, for progress bars. Events in, rows out.

How many tasks a step will have is known once the foreach steps before it have ended.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asyncflow._quick_classes import dataclass
from asyncflow.events.drafts import event_of
from asyncflow.events.records import (
    STARTED,
    SUCCEEDED,
    seconds_in,
    step_of,
    task_of,
    way_on,
)
from asyncflow.events.selection import OutputChunk, RecordedEvents
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
    from collections.abc import Iterable, Sequence

    from asyncflow.events.selection import Publication
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
    """How long the attempts of its tasks have taken in all, also those that failed."""
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
        self._yielded: dict[int, int] = {}  # by tasks whose generators still yield

    def count(self, batch: Iterable[Publication]) -> None:
        """Count events, in their order."""
        for item in batch:
            if isinstance(item, RecordedEvents):
                for values in item.values:
                    self._count_record(values, item.flow, item.run_id)
            elif not isinstance(item, OutputChunk):
                self._count(item)

    def _count_record(self, values: Sequence[Any], flow: str, run_id: str) -> None:
        code = values[0]
        if code == STARTED:  # most are of these two kinds
            self._steps[step_of(values)].running += 1
        elif code == SUCCEEDED:
            self._done(step_of(values), task_of(values), way_on(values)[0], seconds_in(values))
        else:
            self._count(event_of(values, flow, run_id))

    def _count(self, event: Event) -> None:
        match event:
            case TaskStarted():
                self._steps[event.step].running += 1
            case TaskSucceeded():
                self._done(event.step, int(event.task_id), event.fanout, event.seconds)
            case TaskCloned():
                self._fan_out_at_the_end(event.step, int(event.task_id), event.fanout)
            case TaskFailed():
                self._failed(event)
            case TaskYielded():
                count, task = event.index + event.count, int(event.task_id)
                self._steps[event.step].fanned += count - self._yielded.get(task, 0)
                self._yielded[task] = count
            case RunStarted():
                self._graph = Graph.from_data(event.graph)
                self._steps = {node.name: StepTally(node.name) for node in self._graph}

    def _done(self, name: str, task: int, fanout: int | None, seconds: float) -> None:
        step = self._fan_out_at_the_end(name, task, fanout)
        step.running -= 1
        step.seconds += seconds

    def _fan_out_at_the_end(self, name: str, task: int, fanout: int | None) -> StepTally:
        """Count a task that is done, and all tasks that it has fanned out to."""
        step = self._steps[name]
        step.done += 1
        step.fanned += (fanout or 0) - self._yielded.pop(task, 0)
        return step

    def _failed(self, event: TaskFailed) -> None:
        if event.caught:  # the next event says how it ended
            return
        step = self._steps[event.step]
        step.running = max(0, step.running - 1)  # an attempt may fail before it began
        step.seconds += event.seconds
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
