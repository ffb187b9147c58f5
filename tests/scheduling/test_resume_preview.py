"""What `resume --plan` says is what a resume does."""

from __future__ import annotations

import random
from collections import Counter
from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from asyncflow.events import RunStarted, TaskCloned, TaskStarted, TaskSucceeded
from asyncflow.scheduling.commands import CloneTask, FinishRun
from asyncflow.scheduling.plan import Plan
from asyncflow.scheduling.resume import following
from asyncflow.scheduling.resume_preview import Preview
from tests.support.random_graphs import Built, shapes

SEEN: dict[str, Any] = {"flow": "Random", "run_id": "1", "seq": 1, "time": datetime.now(UTC)}


def key(task):
    """What an event about this task has to say."""
    return {"step": task.step, "task_id": str(task.task_id), "attempt": 0, "path": task.path}


class Play:
    """A run on an executor that ends tasks in any order; what it takes over and what it runs."""

    def __init__(self, built, choose, finished=()):
        self.built, self.choose = built, choose
        self.plan = Plan(built.graph, finished=finished)
        self.cloned: list[tuple[str, tuple[int, ...]]] = []
        self.done: list[tuple[str, tuple[int, ...]]] = []
        self.running: list[Any] = []
        self.over = False

    def go(self, most=1 << 30):
        """Run to the end, or until so many tasks have ended."""
        self.note(RunStarted(**SEEN, graph={}))
        while not self.over and len(self.done) < most:
            self.take_over()
            for task in self.plan.take(self.choose(4) + (not self.running)):
                self.note(TaskStarted(**SEEN, **key(task)))
                self.running.append(task)
            if not self.running:
                break  # the last of all was taken over
            task = self.running.pop(self.choose(len(self.running)))
            self.done.append((task.step, task.path))
            self.note(TaskSucceeded(**SEEN, **key(task), **self.went_on(task)))
        return self

    def take_over(self):
        """Take over all that can be."""
        while clones := self.plan.clone(3):
            for clone in clones:
                assert isinstance(clone, CloneTask)
                self.cloned.append((clone.step, clone.path))
                self.note(TaskCloned(**SEEN, **key(clone), **self.went_on(clone)))

    def went_on(self, task) -> dict[str, Any]:
        """How a task goes on."""
        outcome = self.built.outcomes[task.step, task.path]
        return {"fanout": outcome.fanout, "choice": outcome.choice}

    def note(self, event):
        """Tell the plan, and notice the run's end."""
        commands = self.plan.handle(event)
        self.over |= any(isinstance(command, FinishRun) for command in commands)


@given(shapes().map(Built), st.integers(0, 1 << 32), st.data())
def test_a_plan_is_what_happens(built, seed, data):
    """For each step as many tasks are taken over and run as was said, in any order of events."""
    chance = random.Random(seed)  # a draw for each choice would take most of the time

    def choose(count):
        return chance.randrange(max(1, count))

    first = Play(built, choose).go(most=choose(len(built.tasks) + 1))
    named = data.draw(st.none() | st.sampled_from(sorted(built.graph.nodes)))
    again = following(built.graph, named) if named is not None else set()
    finished = {task for task in first.done if task[0] not in again}
    left = {(task.step, task.path): "had not ended" for task in first.running}

    told = Preview(built.graph, finished, left, named).make(built.outcomes.__getitem__)
    happened = Play(built, choose, finished).go()

    cloned = Counter(name for name, _ in happened.cloned)
    ran = Counter(name for name, _ in happened.done)
    for each in told:
        assert each.reused == cloned[each.step]
        assert each.to_run == ran[each.step] or (each.open_ended and each.to_run < ran[each.step])
        assert each.reasons.total() == each.to_run
        assert bool(each.why) == bool(each.to_run or each.open_ended)
