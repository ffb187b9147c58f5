"""What a resume would do, told without doing it: `asyncflow resume --plan`.

The brain itself is asked, with every task that is run taken for done at once, so that the answer
and what a resume does cannot differ.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from asyncflow.events.manifests import unpack_manifest
from asyncflow.events.types import RunStarted, TaskCloned, TaskStarted, TaskSucceeded
from asyncflow.flow.graph import Fanout
from asyncflow.flow.graph_reader import read_graph
from asyncflow.flow.parameters import check_new_parameters
from asyncflow.scheduling.plan import CloneTask, Plan
from asyncflow.scheduling.resume import OriginRun
from asyncflow.store import open_store

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from asyncflow.flow.graph import Graph
    from asyncflow.flow.spec import FlowSpec
    from asyncflow.scheduling.plan import BeginTask

    Key = tuple[str, tuple[int, ...]]

_BATCH: Final = 256


@dataclass(slots=True)
class StepPreview:
    """What a resume would do about one step."""

    step: str
    reused: int = 0
    """How many tasks it would take over."""
    to_run: int = 0
    """How many tasks it would run, as far as can be known now."""
    open_ended: str = ""
    """A step that would be run, and tells only then how many more of this step there are."""
    reasons: Counter[str] = field(default_factory=Counter)
    """Why tasks would be run, and how many each."""

    @property
    def why(self) -> str:
        """The reasons in words."""
        told = [
            reason if n == self.to_run else f"{n} {reason}" for reason, n in self.reasons.items()
        ]
        if self.open_ended:
            told.append(f"as many as {self.open_ended} hands out")
        return ", ".join(told)


def preview_resume(
    flow: type[FlowSpec], *, store: str | os.PathLike[str], origin: str, step: str | None = None
) -> list[StepPreview]:
    """What a resume of the run `origin` would take over and run, and why; nothing is run.

    Raises:
        ResumeError: As a resume would.
        ParameterError: The flow has a new parameter that is required, and is not given.
        StoreError: There is no store.
    """
    graph = read_graph(flow)
    name = flow.__name__
    found = OriginRun(open_store(store).run(name, origin))
    try:
        found.choose(graph, step)
        check_new_parameters(flow, unpack_manifest(found.manifest), os.environ)
        return Preview(graph, found, found.left(), step).make(found.fanout)
    finally:
        found.close()


class Preview:
    """Plays a resume through, as if every task that is run succeeded at once."""

    def __init__(
        self,
        graph: Graph,
        finished: Collection[Key],
        left: Mapping[Key, str],
        named: str | None = None,
    ) -> None:
        """Prepare it; `left` tells how tasks stood that had begun, `named` what is run again."""
        self._graph, self._left, self._named = graph, left, named
        self._plan = Plan(graph, finished=finished)
        self._steps = {name: StepPreview(name) for name in graph.nodes}
        self._seen: dict[str, Any] = {"flow": "", "run_id": "", "seq": 1, "time": datetime.now(UTC)}

    def make(self, fanout: Callable[[Key], int | None]) -> list[StepPreview]:
        """All of it; `fanout` tells how many items a finished task has handed out."""
        plan = self._plan
        plan.handle(RunStarted(**self._seen, graph={}))
        again = True
        while again:
            again = False
            while clones := plan.clone(_BATCH):
                again = True
                for clone in clones:
                    if isinstance(clone, CloneTask):
                        self._take_over(clone, fanout((clone.step, clone.path)))
            for task in plan.take(_BATCH):
                again = True
                self._start(task)
        return list(self._steps.values())

    def _take_over(self, clone: CloneTask, fanout: int | None) -> None:
        self._steps[clone.step].reused += 1
        key: dict[str, Any] = {"step": clone.step, "task_id": str(clone.task_id), "attempt": 0}
        self._plan.handle(TaskCloned(**self._seen, **key, path=clone.path, fanout=fanout))

    def _start(self, task: BeginTask) -> None:
        step = self._steps[task.step]
        step.to_run += 1
        step.reasons[self._reason(task)] += 1
        fanout = None
        if self._graph[task.step].fanout is Fanout.FOREACH:
            fanout = 0  # how many nobody knows; the join is run in any case
            self._leave_open(task.step)
        key: dict[str, Any] = {"step": task.step, "task_id": str(task.task_id), "attempt": 0}
        self._plan.handle(TaskStarted(**self._seen, **key))
        self._plan.handle(TaskSucceeded(**self._seen, **key, path=task.path, fanout=fanout))

    def _reason(self, task: BeginTask) -> str:
        if task.step == self._named:
            return "named to be run again"
        before = [name for name in self._graph.nodes if self._runs_before(name, task.step)]
        how = self._left.get((task.step, task.path))
        if how is not None and not (self._named and before):
            return how
        return f"after {', '.join(before)}" if before else "had not begun"

    def _runs_before(self, name: str, step: str) -> bool:
        runs = self._steps[name].to_run or self._steps[name].open_ended
        return bool(runs) and step in self._graph[name].next

    def _leave_open(self, split: str) -> None:
        """Of the steps between a foreach and its join nobody knows how many tasks there will be."""
        waiting = list(self._graph[split].next)
        while waiting:
            name = waiting.pop()
            if name != self._graph[split].join and not self._steps[name].open_ended:
                self._steps[name].open_ended = split
                waiting += self._graph[name].next
