"""Which step of a run may have one more task, whatever room workers have."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from asyncflow.errors import PoolError
from asyncflow.flow.graph import Graph
from asyncflow.flow.node import Node
from asyncflow.scheduling.gang_workers import GangWorkers
from asyncflow.scheduling.machine_resources import Amounts, MachineResources
from asyncflow.scheduling.placement import ASYNC_SPARE_TASKS, AllWorkers
from asyncflow.scheduling.step_admission import StepAdmission
from asyncflow.testing import FakeClockLoop
from tests.support.manual_workers import ManualExecutor


class Run:
    """A run with ready tasks of two steps, `left` before `right`; it is its own `orders`."""

    def __init__(self, left=None, right=None, *, most=0, number=1, gang=0, left_is_async=False):
        first = "split" if gang else "left"
        nodes = [
            Node("start", (first, "right"), is_start=True),
            Node("left", ("meet",), is_async=left_is_async, options=left or {}),
            Node("meet", ("join",), is_join=True),
            Node("right", ("join",), options=right or {}),
            Node("join", ("end",), is_join=True),
            Node("end", is_end=True),
        ]
        if gang:
            nodes.append(Node("split", ("left",), num_parallel="size"))
            nodes[1] = replace(nodes[1], options={"parallel": True, **(left or {})})
        else:
            nodes[1] = replace(nodes[1], next=("join",))
            del nodes[2]
        self.graph = Graph("F", nodes)
        self.number, self.max_running_tasks, self.gang = number, most, gang
        self.expected: dict[str, float] = {}
        self.pathspec = f"F/{number}"
        self.ready = ["left", "right"]
        self.abandoned: list[Exception] = []

    @property
    def orders(self):
        return self

    def next_step(self):
        return self.ready[0] if self.ready else None

    def next_gang(self):
        return self.gang if self.ready[:1] == ["left"] else 0

    def postpone(self, steps):
        if all(step in steps for step in self.ready):
            return False
        while self.ready[0] in steps:
            self.ready.append(self.ready.pop(0))
        return True

    def abandon(self, error):
        self.abandoned.append(error)

    def give_up(self, by):
        raise AssertionError(by)


class Gate:
    """The admission of runs to workers that do nothing, and whom it has woken."""

    def __init__(self, size=2, machine=None):
        self.loop = FakeClockLoop()
        self.woken: list[int] = []
        nobody: Any = None
        self.executor = ManualExecutor(nobody, size=size, loop=self.loop)
        self.slots = AllWorkers(self.executor)
        self.gangs = GangWorkers(self.slots, self.loop, self._wake)
        resources = MachineResources(machine, self._wake) if machine is not None else None
        self.resources = resources
        self.steps = StepAdmission(self.slots, self.gangs, None, resources)

    def _wake(self, source):
        self.woken.append(source.number)

    def admit(self, run: Any) -> str | None:
        """The run's next step, a task of which is sent to a worker."""
        step = self.steps.next_step(run)
        if step is not None:
            self.steps.begin(run.number, step)
        return step

    def end(self, run, step, *, yields=False):
        """A task is no longer at a worker."""
        self.steps.end(run.number, step, yielding=yields)


@pytest.fixture
def gate():
    """Makes gates, and closes their loops."""
    made: list[Gate] = []

    def make(**more):
        made.append(Gate(**more))
        return made[-1]

    yield make
    for each in made:
        each.loop.close()


def test_a_step_at_its_limit_lets_the_other_steps_pass(gate):
    """And is next again when one of its tasks has ended."""
    steps, run = gate(), Run({"concurrency": 2}, {"concurrency": 1})
    assert [steps.admit(run) for _ in range(4)] == ["left", "left", "right", None]
    steps.end(run, "left")
    assert steps.admit(run) == "left"


def test_a_run_at_its_limit_has_no_next_step(gate):
    """Whatever its steps allow; another run is not concerned."""
    steps, run, other = gate(), Run(most=2), Run(number=2)
    assert [steps.admit(run) for _ in range(3)] == ["left", "left", None]
    assert steps.admit(other) == "left"


def test_a_task_that_yields_items_is_not_counted_for_its_run(gate):
    """The tasks for its items must not wait for its end, and its own end changes nothing."""
    steps, run = gate(), Run(most=1)
    assert steps.admit(run) == "left"
    steps.steps.on_yields(run.number, "left")
    assert steps.admit(run) == "left"
    steps.end(run, "left", yields=True)
    assert steps.admit(run) is None


def test_a_run_that_has_left_is_forgotten(gate):
    """A run of the same number would begin with nothing at workers."""
    steps, run = gate(), Run({"concurrency": 1, "limit": [["database", 1]]}, most=1)
    steps.steps.enter(run)
    steps.admit(run)
    steps.steps.leave(run)
    assert not steps.steps.conditions
    assert steps.admit(run) == "left"


def test_def_tasks_go_first_at_the_only_worker_while_it_runs_one(gate):
    """Otherwise it would switch between the kinds all the time."""
    steps, run = gate(size=1), Run(left_is_async=True)
    assert steps.steps.next_step(run) == "left"
    slot = steps.slots.of_kind(None).find(steps.steps.demand(run, "right"), None)
    slot.tasks[object()] = None
    assert steps.steps.next_step(run) == "right"


def test_a_run_with_few_tasks_may_have_a_spare_place(gate):
    """So that a run with thousands of async tasks does not keep the others away."""
    steps, run = gate(), Run({"concurrency": 10_000})
    for _ in range(ASYNC_SPARE_TASKS - 1):
        steps.admit(run)
    assert steps.steps.has_few(run)
    assert steps.steps.demand(run, "left").few
    steps.admit(run)
    assert not steps.steps.has_few(run)


def test_what_does_not_fit_on_the_machine_waits_and_comes_first_then(gate):
    """Its run is woken; a step that may not begin for another reason leaves the line."""
    needs = {"resources": {"cpu": 2}, "concurrency": 1}
    steps, run = gate(machine=Amounts(cpu=2.0)), Run(needs)
    steps.steps.enter(run)
    amounts = Amounts(cpu=1.0)
    steps.resources.take(Run(number=2), "left", amounts)
    assert steps.admit(run) == "right"
    assert steps.resources
    steps.resources.give_back(amounts)
    assert steps.woken == [1]
    assert steps.admit(run) == "left"
    assert steps.admit(run) == "right"
    assert not steps.resources


def test_a_gang_that_is_larger_than_a_limit_runs_alone(gate):
    """It waits until no other task of its step, or of its run, is at a worker."""
    steps, run = gate(size=8), Run({"concurrency": 2}, gang=3)
    steps.steps.enter(run)
    run.ready = ["left"]
    steps.steps.begin(run.number, "left")
    assert steps.admit(run) is None
    steps.end(run, "left")
    assert steps.admit(run) == "left"


# --- their workers --------------------------------------------------------------------------------


def test_gangs_do_not_add_up(gate):
    """A second one that would need extra workers waits until the first has ended."""
    play, first, second = gate(size=2), Run(gang=3), Run(number=2, gang=3)
    assert play.gangs.may_begin(first, "left", 3)
    slots = play.gangs.gather(first, "left", 3)
    assert sum(slot.is_extra for slot in slots) == 1
    play.gangs.begin()
    for slot in slots:
        slot.tasks[object()] = None
    assert not play.gangs.may_begin(second, "left", 3)
    play.gangs.end()
    assert play.woken == [2]


def test_extra_workers_stay_for_the_next_gang_and_go_after_a_second(gate):
    """Those of a gang that has ended are idle until then."""
    play, run = gate(size=1), Run(gang=2)
    slots = play.gangs.gather(run, "left", 2)
    play.gangs.begin()
    play.gangs.end()

    def gone_at(moment):
        play.loop.call_later(moment - play.loop.time(), play.loop.stop)
        play.loop.run_forever()
        return [bool(slot.worker.stop_reason) for slot in slots]

    assert gone_at(0.9) == [False, False]
    assert sorted(gone_at(1.1)) == [False, True]


def test_a_run_fails_whose_gang_never_gets_its_workers(gate):
    """It waits and tries again a few times; a success in between counts."""
    play, run = gate(size=1), Run(gang=2)

    def fail(kind=None):
        raise PoolError("no more processes")

    start, play.executor.start_worker = play.executor.start_worker, fail
    for _ in range(6):
        assert not run.abandoned
        with pytest.raises(PoolError):
            play.gangs.gather(run, "left", 2)
        play.gangs.wake_waiting()
    assert play.woken == [1] * 6
    assert "a gang of 2 tasks cannot have its workers: no more processes" in str(run.abandoned[0])
    play.executor.start_worker = start
    assert len(play.gangs.gather(run, "left", 2)) == 2
