"""The pure brain: any legal order of events reaches the same end."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncflow.events import (
    RunStarted,
    RunSucceeded,
    TaskCloned,
    TaskFailed,
    TaskStarted,
    TaskSucceeded,
    TaskYielded,
)
from asyncflow.flow.graph import Graph
from asyncflow.flow.node import Fanout, Node
from asyncflow.scheduling.commands import FinishRun, HandOn, RetryTask, StopTasks, Verdict
from asyncflow.scheduling.plan import Plan
from asyncflow.scheduling.planned_tasks import IllegalEventError
from asyncflow.values import Outcome, Status
from tests.support.random_graphs import PLAIN, Built, shapes

NOW = datetime.now(UTC)
SEEN: dict[str, Any] = {"flow": "Random", "run_id": "1", "seq": 1, "time": NOW}


def started():
    """The event that begins a run."""
    return RunStarted(**SEEN, graph={})


def began(task):
    """The event that a task has begun."""
    key: dict[str, Any] = {"step": task.step, "task_id": str(task.task_id), "attempt": task.attempt}
    return TaskStarted(**SEEN, **key, path=task.path)


def done(task, outcome=PLAIN):
    """The event that a task has succeeded."""
    key: dict[str, Any] = {"step": task.step, "task_id": str(task.task_id), "attempt": task.attempt}
    went_on: dict[str, Any] = {"fanout": outcome.fanout, "choice": outcome.choice}
    return TaskSucceeded(**SEEN, **key, path=task.path, **went_on)


def failed(task, **more):
    """The event that a task has failed."""
    key: dict[str, Any] = {"step": task.step, "task_id": str(task.task_id), "attempt": task.attempt}
    return TaskFailed(**SEEN, **key, path=task.path, exception_type="ValueError", **more)


class Simulation:
    """Runs a plan on an executor that ends tasks in whatever order it is told."""

    def __init__(self, built, choose, plan=None):
        self.built, self._choose = built, choose
        self.plan = plan or Plan(built.graph)
        self.running = []
        self.run = []
        self.ids, self.inputs, self.parents = {}, {}, {}
        self.finish = None

    def go(self):
        """Run to the end."""
        self.note(self.plan.handle(started()))
        while self.finish is None:
            self.take_some()
            index = self._choose(len(self.running))
            self.end(self.running.pop(index))
        return self

    def end(self, task):
        """Have a task succeed."""
        self.note(self.plan.handle(done(task, self.built.outcomes[task.step, task.path])))

    def take_some(self):
        """Take at least one task if there is none running."""
        limit = self._choose(4) + (not self.running)
        for task in self.plan.take(limit):
            self.plan.handle(began(task))
            self.running.append(task)
            self.run.append((task.step, task.path))
            self.ids[task.step, task.path] = task.task_id
            self.inputs[task.step, task.path] = list(task.inputs)
            self.parents[task.step, task.path] = task.parents

    def note(self, commands):
        """Remember the run's last word."""
        for command in commands:
            if isinstance(command, FinishRun):
                self.finish = command


class Streaming(Simulation):
    """Has some foreachs yield their items one by one, or several at once, while other tasks run."""

    def __init__(self, built, choose, plan=None):
        super().__init__(built, choose, plan)
        self.yielded = {}

    def take_some(self):
        """Take some tasks, and let some yield."""
        super().take_some()
        for task in self.running:
            left = self.left(task)
            if left and self._choose(2):
                self.more(task, 1 + self._choose(left))

    def left(self, task):
        """How many items it has not yielded yet."""
        fanout = self.built.outcomes[task.step, task.path].fanout or 0
        return fanout - self.yielded.get(task.task_id, 0)

    def more(self, task, count):
        """Have a task yield so many items."""
        first = self.yielded.get(task.task_id, 0)
        self.yielded[task.task_id] = first + count
        key: dict[str, Any] = {"step": task.step, "task_id": str(task.task_id), "attempt": 0}
        event = TaskYielded(**SEEN, **key, path=task.path, index=first, count=count)
        self.note(self.plan.handle(event))

    def end(self, task):
        """Have it succeed, with all its items."""
        if self.yielded.get(task.task_id) and self.left(task):
            self.more(task, self.left(task))
        super().end(task)


def chooser(data):
    """Draws the next choice, for a simulation."""
    return lambda count: data.draw(st.integers(0, max(0, count - 1)))


@given(shapes().map(Built), st.data())
def test_every_task_is_run_exactly_once_in_any_order(built, data):
    """Whatever order tasks end in, each task of the graph is run once, and the run succeeds."""
    simulation = Simulation(built, chooser(data)).go()
    assert sorted(simulation.run) == built.tasks
    assert simulation.finish.status is Status.SUCCEEDED


@given(shapes().map(Built), st.data())
def test_tasks_of_items_that_are_yielded_are_run_once_and_joined_in_order(built, data):
    """However the items come, and whatever ends meanwhile, it comes to the same as a list."""
    simulation = Streaming(built, chooser(data)).go()
    assert sorted(simulation.run) == built.tasks
    assert simulation.finish.status is Status.SUCCEEDED
    keys = {task_id: key for key, task_id in simulation.ids.items()}
    for key, inputs in simulation.inputs.items():
        assert [keys[each] for each in inputs if each] == built.inputs[key]


@given(shapes().map(Built), st.data())
def test_a_task_sees_its_inputs_in_the_order_of_branches_or_items(built, data):
    """Inputs are ids of the right tasks, in an order that does not depend on who ended first."""
    simulation = Simulation(built, chooser(data)).go()
    keys = {task_id: key for key, task_id in simulation.ids.items()}
    for key, inputs in simulation.inputs.items():
        assert [keys[each] for each in inputs if each] == built.inputs[key]


@given(shapes().map(Built), st.data())
def test_parents_are_told_where_the_graph_does_not_say_them(built, data):
    """In a graph with conditions, but for the joins of foreachs."""
    simulation = Simulation(built, chooser(data)).go()
    for (step, path), parents in simulation.parents.items():
        node = built.graph[step]
        by_path = node.joins is not None and built.graph[node.joins].fanout is Fanout.FOREACH
        told = built.graph.has_conditions and step != "start" and not by_path
        assert list(parents) == (simulation.inputs[step, path] if told else [])


def is_whole(built, key, finished):
    """Whether all nodes of a task's gang are finished, if it is of one."""
    step, path = key
    if not built.graph[step].is_gang:
        return True
    nodes = [each for each in built.tasks if each[0] == step and each[1][:-1] == path[:-1]]
    return finished.issuperset(nodes)


@given(shapes().map(Built), st.data())
def test_a_gang_is_taken_as_a_whole(built, data):
    """However few tasks are asked for, and with ids that follow each other."""
    simulation = Simulation(built, chooser(data)).go()
    for at, (step, path) in enumerate(simulation.run):
        if built.graph[step].is_gang and path[-1] == 0:
            width = sum(each[0] == step and each[1][:-1] == path[:-1] for each in built.tasks)
            nodes = [(step, (*path[:-1], index)) for index in range(width)]
            first = simulation.ids[step, path]
            assert simulation.run[at : at + width] == nodes
            assert [simulation.ids[key] for key in nodes] == [first + n for n in range(width)]


@given(shapes().map(Built), st.data())
def test_a_replay_takes_over_what_had_finished_and_runs_the_rest(built, data):
    """With any legal part of a run finished, a second plan clones that part and runs the rest.

    A gang is cloned as a whole, or runs as a whole.
    """
    first = Simulation(built, chooser(data)).go()
    stop = data.draw(st.integers(0, len(first.run)))
    finished = set(first.run[:stop])
    plan = Plan(built.graph, finished=finished)
    cloned = []

    class Resumed(Simulation):
        def take_some(self):
            while clones := plan.clone(2):
                for clone in clones:
                    cloned.append((clone.step, clone.path))
                    self.note(plan.handle(self.take_over(clone)))
            if self.finish is None:
                super().take_some()

        def take_over(self, clone):
            outcome = built.outcomes[clone.step, clone.path]
            went_on: dict[str, Any] = {"fanout": outcome.fanout, "choice": outcome.choice}
            key: dict[str, Any] = {"step": clone.step, "task_id": str(clone.task_id), "attempt": 0}
            return TaskCloned(**SEEN, **key, path=clone.path, **went_on)

        def go(self):
            self.note(self.plan.handle(started()))
            while self.finish is None:
                self.take_some()
                if self.running:
                    task = self.running.pop(self._choose(len(self.running)))
                    self.note(self.plan.handle(done(task, built.outcomes[task.step, task.path])))
            return self

    second = Resumed(built, chooser(data), plan).go()
    assert set(cloned) == {key for key in finished if is_whole(built, key, finished)}
    assert sorted(second.run + cloned) == built.tasks


@given(shapes().map(Built), st.data())
def test_a_failure_ends_the_run_when_nothing_is_running_any_more(built, data):
    """After a failure nothing new starts, and the last word comes with the last running task."""
    simulation = Simulation(built, chooser(data))
    plan = simulation.plan
    plan.handle(started())
    for _ in range(data.draw(st.integers(0, 5))):
        simulation.take_some()
        if len(simulation.running) > 1:
            task = simulation.running.pop()
            simulation.note(plan.handle(done(task, built.outcomes[task.step, task.path])))
    simulation.take_some()
    if simulation.finish is not None or not simulation.running:
        return
    commands = plan.handle(failed(simulation.running.pop()))
    assert isinstance(commands[0], StopTasks)
    assert plan.take(10) == []
    for task in simulation.running:
        assert not any(isinstance(command, FinishRun) for command in commands)
        commands = plan.handle(failed(task))
    assert isinstance(commands[-1], FinishRun)
    assert commands[-1].status is Status.FAILED


def linear(**options):
    """A graph of two steps, the first with options."""
    return Graph("Linear", [Node("start", ("end",), options=options), Node("end")])


RETRY = {"times": 2, "seconds": 3.0, "backoff": 2.0, "max_seconds": 5.0, "jitter": 0.0, "on": []}


def test_a_retry_waits_longer_each_time_up_to_its_limit():
    """Backoff multiplies, and max_seconds bounds."""
    plan = Plan(linear(retry=RETRY))
    plan.handle(started())
    waits = []
    for _ in range(2):
        (task,) = plan.take(1)
        plan.handle(began(task))
        (command,) = plan.handle(failed(task, will_retry=True))
        assert isinstance(command, RetryTask)
        waits.append(command.after_seconds)
        plan.wake(task.task_id)
    assert waits == [3.0, 5.0]
    assert plan.verdict(task.task_id) is Verdict.FAIL


def test_a_retry_is_for_the_exceptions_that_it_names():
    """An exception that is not meant fails the task at once."""
    plan = Plan(linear(retry=RETRY))
    plan.handle(started())
    (task,) = plan.take(1)
    assert plan.verdict(task.task_id, may_retry=True) is Verdict.RETRY
    assert plan.verdict(task.task_id, may_retry=False) is Verdict.FAIL


def test_a_stand_in_hands_a_caught_failure_on():
    """Where nothing else comes of it, the task is started once more, with the failure."""
    plan = Plan(linear(catch={"var": "failure", "print_exception": False}))
    plan.handle(started())
    (task,) = plan.take(1)
    plan.handle(began(task))
    assert plan.verdict(task.task_id) is Verdict.CATCH
    assert plan.handle(failed(task, caught=True)) == [HandOn(task.task_id)]
    assert plan.take(1) == []
    assert plan.hand_on(task.task_id) == []
    (again,) = plan.take(1)
    assert (again.task_id, again.attempt) == (task.task_id, 1)
    assert again.caught.exception_type == "ValueError"
    assert plan.verdict(task.task_id) is Verdict.FAIL


def test_a_task_whose_worker_has_handed_its_failure_on_needs_no_stand_in():
    """It has succeeded, also in a run that is ending."""
    for stops in (False, True):
        plan = Plan(linear(catch={"var": "failure", "print_exception": False}))
        plan.handle(started())
        (task,) = plan.take(1)
        plan.handle(began(task))
        if stops:
            plan.cancel("enough")
        assert plan.handle(failed(task, caught=True)) == [HandOn(task.task_id)]
        ended = plan.handle(done(task))
        assert ended == ([FinishRun(Status.CANCELLED, None, "enough")] if stops else [])
        assert plan.hand_on(task.task_id) == []
        assert plan.ready == (0 if stops else 1)


def test_no_stand_in_is_started_in_a_run_that_is_ending():
    """The run ends, whether it was cancelled before the failure was known or after."""
    for first in (True, False):
        plan = Plan(linear(catch={"var": "failure", "print_exception": False}))
        plan.handle(started())
        (task,) = plan.take(1)
        plan.handle(began(task))
        commands = plan.cancel("enough") if first else []
        commands += plan.handle(failed(task, caught=True))
        commands += [] if first else plan.cancel("enough")
        commands += plan.hand_on(task.task_id)
        assert commands.count(FinishRun(Status.CANCELLED, None, "enough")) == 1
        assert plan.take(1) == []


def test_cancelling_ends_the_run_at_once_when_nothing_runs():
    """A run that waits for nothing is cancelled with its last word."""
    plan = Plan(linear())
    plan.handle(started())
    assert plan.cancel("enough") == [
        StopTasks("enough"),
        FinishRun(Status.CANCELLED, None, "enough"),
    ]
    assert plan.ready == 0


def test_whoever_cancels_a_run_that_stops_with_its_engine_has_the_last_word():
    """It is not to be taken up again; the end of the engine takes nothing from a cancellation."""
    for first, second in [(True, False), (False, True)]:
        plan = Plan(linear())
        plan.handle(started())
        (task,) = plan.take(1)
        plan.handle(began(task))
        plan.cancel("first", by_shutdown=first)
        plan.cancel("second", by_shutdown=second)
        (finish,) = plan.handle(failed(task))
        reason = "second" if first else "first"
        assert finish == FinishRun(Status.CANCELLED, None, reason, by_shutdown=False)


def test_a_task_that_was_given_back_is_ready_again():
    """Giving back keeps id and attempt."""
    plan = Plan(linear())
    plan.handle(started())
    (task,) = plan.take(1)
    assert plan.ready == 0
    plan.give_back(task.task_id)
    assert plan.take(1) == [task]


def test_a_run_that_is_stopped_does_not_wait_for_tasks_that_were_given_back():
    """Nobody has them any more, so nobody would tell of their end."""
    plan = Plan(linear())
    plan.handle(started())
    (task,) = plan.take(1)
    plan.give_back(task.task_id)
    assert plan.cancel("enough")[-1] == FinishRun(Status.CANCELLED, None, "enough")


def test_a_run_that_is_stopped_does_not_wait_for_tasks_that_are_to_be_tried_again():
    """The time of the retry had come, and no worker had room for it yet."""
    plan = Plan(linear(retry=RETRY))
    plan.handle(started())
    (task,) = plan.take(1)
    plan.handle(began(task))
    plan.handle(failed(task, will_retry=True))
    plan.wake(task.task_id)
    assert plan.cancel("enough")[-1] == FinishRun(Status.CANCELLED, None, "enough")


def test_an_event_that_cannot_come_now_is_refused():
    """A task cannot end twice."""
    plan = Plan(linear())
    plan.handle(started())
    (task,) = plan.take(1)
    plan.handle(began(task))
    plan.handle(done(task))
    with pytest.raises(IllegalEventError):
        plan.handle(done(task))


def gang_of(count, **more):
    """A plan whose gang of so many nodes is ready."""
    options = {"parallel": True, "retry": {**RETRY, "jitter": 0.5}}
    nodes = [
        Node("start", ("node",), num_parallel="self.size"),
        Node("node", ("join",), options=options),
        Node("join", ("end",), is_join=True),
        Node("end"),
    ]
    plan = Plan(Graph("Gang", nodes), **more)
    plan.handle(started())
    plan.clone(1)
    (first,) = plan.take(1)
    plan.handle(began(first))
    plan.handle(done(first, Outcome(fanout=count)))
    plan.clone(1)
    return plan


def test_a_gang_is_ready_again_when_all_of_its_nodes_are():
    """They wait equally long, and are taken together with the same ids."""
    plan = gang_of(3)
    assert (plan.ready, plan.next_gang()) == (3, 3)
    nodes = plan.take(1)
    assert (plan.ready, plan.next_gang()) == (0, 0)
    for node in nodes[:2]:
        plan.handle(began(node))
    commands = [plan.handle(failed(node, will_retry=True)) for node in nodes]
    assert len({command.after_seconds for (command,) in commands}) == 1
    for node in nodes:
        assert plan.ready == 0
        plan.wake(node.task_id)
    again = plan.take(1)
    assert [(node.task_id, node.attempt) for node in again] == [(node.task_id, 1) for node in nodes]


def test_a_run_that_is_stopped_does_not_wait_for_a_gang_that_is_to_be_tried_again():
    """Whether some or all of its nodes have waited long enough."""
    for woken in (1, 3):
        plan = gang_of(3)
        nodes = plan.take(1)
        for node in nodes:
            plan.handle(began(node))
        for node in nodes:
            plan.handle(failed(node, will_retry=True))
        for node in nodes[:woken]:
            plan.wake(node.task_id)
        assert plan.cancel("enough")[-1] == FinishRun(Status.CANCELLED, None, "enough")


def test_a_gang_goes_on_waiting_in_a_resumed_run_only_as_a_whole():
    """If one of its nodes had not got to that, all begin anew at once."""
    keys = [("node", (index,)) for index in range(2)]
    plan = gang_of(2, waiting={keys[0]: (1, 1.0), keys[1]: (1, 2.0)})
    assert plan.ready == 0
    assert plan.unfinished == 2
    plan = gang_of(2, waiting={keys[0]: (1, 1.0)}, finished={keys[1]})
    assert plan.next_gang() == 2
    assert [node.attempt for node in plan.take(1)] == [0, 0]


def test_the_last_word_is_the_plans_status():
    """After RunSucceeded nothing is left."""
    plan = Plan(linear())
    plan.handle(started())
    plan.handle(RunSucceeded(**SEEN))
    assert (plan.status, plan.ready, plan.unfinished) == (Status.SUCCEEDED, 0, 0)


def test_a_wide_foreach_holds_one_entry_until_it_is_taken():
    """A hundred thousand ready tasks are not a hundred thousand objects."""
    nodes = [
        Node("start", ("work",), foreach="items"),
        Node("work", ("join",)),
        Node("join", ("end",), is_join=True),
        Node("end"),
    ]
    plan = Plan(Graph("Wide", nodes))
    plan.handle(started())
    (task,) = plan.take(1)
    plan.handle(began(task))
    plan.handle(done(task, Outcome(fanout=100_000)))
    assert plan.ready == 100_000
    assert plan.unfinished == 0
    assert len(plan._queue) == 1


# --- a join that reads its inputs as they arrive ------------------------------------------------

EARLY = Graph(
    "Early",
    [
        Node("start", ("work",), foreach="items"),
        Node("work", ("join",)),
        Node("join", ("end",), is_join=True, is_async=True, options={"arrivals": True}),
        Node("end"),
    ],
)


def opened(count=3):
    """A plan whose foreach over so many items has begun, and the tasks for these."""
    plan = Plan(EARLY)
    plan.handle(started())
    (start,) = plan.take(1)
    plan.handle(began(start))
    plan.handle(done(start, Outcome(fanout=count)))
    tasks = plan.take(count)
    for task in tasks:
        plan.handle(began(task))
    return plan, tasks


def test_an_early_join_is_ready_with_its_first_input():
    """It begins with what is there, and is told the rest once, as it comes."""
    plan, (one, two, three) = opened()
    assert plan.ready == 0
    plan.handle(done(two))
    (join,) = plan.take(9)
    assert (join.step, list(join.inputs), join.awaits) == ("join", [two.task_id], True)
    plan.handle(done(one))
    assert plan.arrivals() == []  # it has not begun yet
    plan.handle(began(join))
    (told,) = plan.arrivals()
    assert (told.task_id, list(told.inputs), told.are_last) == (join.task_id, [one.task_id], False)
    assert plan.arrivals() == []
    plan.handle(done(three))
    (told,) = plan.arrivals()
    assert (list(told.inputs), told.are_last) == ([three.task_id], True)
    plan.handle(done(join))
    assert plan.next_step() == "end"


def test_an_early_join_that_is_late_has_its_inputs_in_the_order_of_items():
    """Then it is like any other join."""
    plan, tasks = opened()
    for task in reversed(tasks):
        plan.handle(done(task))
    (join,) = plan.take(9)
    assert (list(join.inputs), join.awaits) == ([task.task_id for task in tasks], False)


def test_an_early_join_is_stopped_if_an_input_fails():
    """The other running tasks may finish, but it would wait for ever."""
    plan, (one, two, _) = opened()
    plan.finish_running = True
    plan.handle(done(one))
    (join,) = plan.take(9)
    plan.handle(began(join))
    (stop,) = plan.handle(failed(two))
    assert isinstance(stop, StopTasks)
    assert (stop.running, list(stop.waiting)) == (False, [join.task_id])


def test_an_early_join_must_not_end_before_its_inputs():
    """What comes after it may rely on all of them."""
    plan, (one, *_) = opened()
    plan.handle(done(one))
    (join,) = plan.take(9)
    plan.handle(began(join))
    with pytest.raises(IllegalEventError, match="ended before its inputs"):
        plan.handle(done(join))
