"""What a resume would do, without doing it: `asyncflow resume --plan`.

It uses the brain itself, and treats every task to run as done at once, so that the preview and the
resume cannot differ.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from asyncflow.events.manifests import unpack_manifest
from asyncflow.events.types import RunStarted, TaskCloned, TaskStarted, TaskSucceeded
from asyncflow.flow.graph_reader import read_graph
from asyncflow.flow.node import Fanout
from asyncflow.flow.parameter_values import check_new_parameters
from asyncflow.scheduling.commands import CloneTask
from asyncflow.scheduling.plan import Plan
from asyncflow.scheduling.resume import OriginRun
from asyncflow.store import open_store

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from asyncflow.flow.graph import Graph
    from asyncflow.flow.spec import FlowSpec
    from asyncflow.scheduling.commands import BeginTask
    from asyncflow.store.interface import StoredRun
    from asyncflow.values import Outcome

    Key = tuple[str, tuple[int, ...]]

_BATCH: Final = 256


@dataclass(slots=True)
class StepPreview:
    """What a resume would do with one step."""

    step: str
    reused: int = 0
    """How many tasks it would take over."""
    to_run: int = 0
    """How many tasks it would run, as far as is known now."""
    open_ended: str = ""
    """A step that would run, and only then determine whether this step has more tasks."""
    reasons: Counter[str] = field(default_factory=Counter)
    """The reasons to run tasks, with the number of tasks for each."""

    @property
    def why(self) -> str:
        told = [
            reason if n == self.to_run else f"{n} {reason}" for reason, n in self.reasons.items()
        ]
        if self.open_ended:
            told.append(f"known once {self.open_ended} has run")
        return ", ".join(told)


def preview_resume(
    flow: type[FlowSpec], *, store: str | os.PathLike[str], origin: str, step: str | None = None
) -> list[StepPreview]:
    """What a resume of the run `origin` would take over and run, and why; nothing runs.

    Raises:
        ResumeError: As a resume would raise it.
        ParameterError: The flow has a new required parameter without a value.
        StoreError: There is no store.
    """
    found = OriginRun(open_store(store).run(flow.__name__, origin))
    try:
        flow = found.prepared(flow, os.environ)
        graph = read_graph(flow)
        found.choose(graph, step)
        check_new_parameters(flow, unpack_manifest(found.manifest), os.environ)
        return Preview(graph, found, found.unfinished(), step).make(found.outcome)
    finally:
        found.close()


def plan_data(steps: Sequence[StepPreview]) -> list[dict[str, Any]]:
    """What a resume would do as plain data; `at_least` if the number is known only later."""
    return [
        {
            "step": step.step,
            "reused": step.reused,
            "to_run": step.to_run,
            "at_least": bool(step.open_ended),
            "why": step.why,
        }
        for step in steps
    ]


def preview_recorded(run: StoredRun, step: str | None = None) -> list[StepPreview]:
    """The same as `preview_resume` for the flow as it was in that run: no code of it is loaded.

    Raises:
        ResumeError: As a resume would raise it.
        JournalError: The run is damaged.
    """
    found = OriginRun(run)
    try:
        graph = found.graph
        found.choose(graph, step)
        return Preview(graph, found, found.unfinished(), step).make(found.outcome)
    finally:
        found.close()


class Preview:
    """Plays a resume through, as if every task that runs succeeded at once."""

    def __init__(
        self,
        graph: Graph,
        finished: Collection[Key],
        unfinished: Mapping[Key, str],
        named: str | None = None,
    ) -> None:
        """Prepare it; `unfinished` has states of tasks, `named` is the step to run again from."""
        self._graph, self._unfinished, self._named = graph, unfinished, named
        self._plan = Plan(graph, finished=finished)
        self._steps = {name: StepPreview(name) for name in graph.nodes}
        self._steps_to_end = _steps_to_end(graph)
        self._seen: dict[str, Any] = {"flow": "", "run_id": "", "seq": 1, "time": datetime.now(UTC)}

    def make(self, outcome: Callable[[Key], Outcome]) -> list[StepPreview]:
        """The whole preview; `outcome` returns the result of a finished task."""
        plan = self._plan
        plan.handle(RunStarted(**self._seen, graph={}))
        again = True
        while again:
            again = False
            while clones := plan.clone(_BATCH):
                again = True
                for clone in clones:
                    if isinstance(clone, CloneTask):
                        self._take_over(clone, outcome((clone.step, clone.path)))
            for task in plan.take(_BATCH):
                again = True
                self._start(task)
        return list(self._steps.values())

    def _take_over(self, clone: CloneTask, outcome: Outcome) -> None:
        self._steps[clone.step].reused += 1
        key: dict[str, Any] = {"step": clone.step, "task_id": str(clone.task_id), "attempt": 0}
        went_on: dict[str, Any] = {"fanout": outcome.fanout, "choice": outcome.choice}
        self._plan.handle(TaskCloned(**self._seen, **key, path=clone.path, **went_on))

    def _start(self, task: BeginTask) -> None:
        step, node = self._steps[task.step], self._graph[task.step]
        if not self._may_be_passed(step):
            step.to_run += 1
            step.reasons[self._reason(task)] += 1
        fanout, choice = None, ""
        if node.fanout is Fanout.FOREACH:
            fanout = 0  # how many is not known yet; the join is run in any case
            self._leave_open(task.step)
        elif node.fanout is Fanout.CONDITION:
            choice = self._shortest_way(task.step)  # so that this comes to the join or the end
            self._leave_open(task.step)
        key: dict[str, Any] = {"step": task.step, "task_id": str(task.task_id), "attempt": 0}
        self._plan.handle(TaskStarted(**self._seen, **key))
        went_on: dict[str, Any] = {"fanout": fanout, "choice": choice}
        self._plan.handle(TaskSucceeded(**self._seen, **key, path=task.path, **went_on))

    def _may_be_passed(self, step: StepPreview) -> bool:
        """Whether a condition decides whether the step is run at all."""
        after = step.open_ended
        return bool(after) and self._graph[after].fanout is Fanout.CONDITION

    def _shortest_way(self, condition: str) -> str:
        """The next step from which fewest steps lead to the end."""
        return min(self._graph[condition].next, key=self._steps_to_end.__getitem__)

    def _reason(self, task: BeginTask) -> str:
        if task.step == self._named:
            return "named to be run again"
        before = [name for name in self._graph.nodes if self._runs_before(name, task.step)]
        how = self._unfinished.get((task.step, task.path))
        if how is not None and not (self._named and before):
            return how
        return f"after {', '.join(before)}" if before else "had not begun"

    def _runs_before(self, name: str, step: str) -> bool:
        runs = self._steps[name].to_run or self._steps[name].open_ended
        return bool(runs) and step in self._graph[name].next

    def _leave_open(self, split: str) -> None:
        """It is not known yet how many tasks the steps after this one will have.

        These are the steps of its foreach, or those up to where its branch or the flow ends.
        """
        waiting = list(self._graph[split].next)
        passed: set[str] = set()
        while waiting:
            node = self._graph[waiting.pop()]
            ends_branch = node.is_end or (node.is_join and node.joins not in passed)
            if node.name in passed or node.name == self._graph[split].join or ends_branch:
                continue
            passed.add(node.name)
            if not self._steps[node.name].open_ended:
                self._steps[node.name].open_ended = split
            waiting += node.next


def _steps_to_end(graph: Graph) -> dict[str, int]:
    """How many steps lie between each step and the end, on the shortest way."""
    found, reached = {graph.end: 0}, [graph.end]
    for name in reached:  # the list grows while it is read
        for before in graph.previous(name):
            if before not in found:
                found[before] = found[name] + 1
                reached.append(before)
    return found
