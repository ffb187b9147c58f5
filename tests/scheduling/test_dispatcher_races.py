"""Which worker gets which task, and what becomes of tasks when a worker or a run ends early.

Workers are stand-ins here, so that every order of what can happen at once is played through: a test
says when a worker receives an order, reports, and exits.
"""

from __future__ import annotations

import asyncio
from collections import deque
from types import SimpleNamespace
from typing import Any

import pytest

from asyncflow._support.conditions import look_again
from asyncflow.errors import PoolError
from asyncflow.flow.graph import Graph
from asyncflow.flow.node import Node
from asyncflow.scheduling import worker_watch as module
from asyncflow.scheduling.dispatcher import Dispatcher
from asyncflow.scheduling.facts import Lost
from asyncflow.scheduling.placement import SILENT_POLLS
from asyncflow.scheduling.run_services import RunServices
from asyncflow.values import Outcome
from asyncflow.workers.messages import (
    AttemptKey,
    Blocked,
    Failed,
    Opened,
    Opening,
    Ping,
    Pong,
    ShutDown,
    Started,
    StartTask,
    Stopping,
    Succeeded,
)
from asyncflow.workers.program_environment import ProgramEnvironment
from tests.support.manual_workers import ManualExecutor
from tests.support.raising_handler import SignalError

NOWHERE = (0, 0)


class Source:
    """A run with tasks of one step, one after the other."""

    def __init__(self, number, tasks, *, is_async=False, expected=0.0, **options):
        self.number = number
        self.pathspec = f"Some/{number}"
        node = Node("work", ("end",), options=options, is_async=is_async)
        self.graph = Graph("Some", [Node("start", ("work",)), node, Node("end")])
        self.expected = {"work": expected}
        self.backlog_bytes = self.priority = self.max_running_tasks = 0
        self.congested = False
        self.tasks = deque(tasks)
        self.told = []
        self.abandoned = []
        self.opening = Opening(number, "store", "Some", "1", ProgramEnvironment("", (), {}))

    @property
    def ready(self):
        return len(self.tasks)

    @property
    def orders(self):
        return self

    def next_step(self):
        return "work" if self.tasks else None

    def postpone(self, steps):
        return False

    def take(self):
        return StartTask(AttemptKey(self.number, self.tasks.popleft(), 0), "work", (), (), b"", ())

    def take_items(self, most):
        """Its tasks are taken one by one."""

    def give_back(self, task_id):
        self.tasks.append(task_id)

    def on_started(self, tasks, pid, node):
        pass

    def tell(self, *facts):
        self.told += facts

    def abandon(self, error):
        self.abandoned.append(error)

    def give_up(self, by):
        raise AssertionError(by)

    def lost(self):
        """What it heard of lost tasks."""
        return [
            (fact.key.task, fact.exception_type.rsplit(".", 1)[-1], fact.how)
            for fact in self.told
            if isinstance(fact, Lost)
        ]

    def succeeded(self):
        """The tasks of which it heard that they succeeded."""
        return [fact.key.task for fact in self.told if isinstance(fact, Succeeded)]


@pytest.fixture
def make():
    """Makes a dispatcher with so many workers, whose timers the test fires itself."""

    def made(size=1):
        nothing: Any = None  # it writes nothing here
        loop: Any = Timers()
        services = RunServices(disk=nothing, syncs=nothing, grace_seconds=5.0, sync_seconds=1.0)
        return Dispatcher(
            services, lambda listener: ManualExecutor(listener, size=size, loop=loop), loop=loop
        )

    return made


class Timers:
    """In place of the event loop: what was to happen later, for the test to have happen."""

    def __init__(self):
        self.due = []
        self.soon: deque[Any] = deque()

    def call_soon(self, callback, *args):
        self.soon.append((callback, args))

    def call_later(self, seconds, callback, *args):
        timer = SimpleNamespace(seconds=seconds, callback=callback, args=args, cancelled=False)
        timer.cancel = lambda: setattr(timer, "cancelled", True)
        self.due.append(timer)
        return timer

    def call_at(self, when, callback, *args):
        return self.call_later(when - self.time(), callback, *args)

    def time(self):
        """Every task is short here."""
        return 0.0

    def fire(self, seconds):
        """Have the timers of so many seconds happen that were not cancelled."""
        ready = [timer for timer in self.due if timer.seconds == seconds and not timer.cancelled]
        self.due = [timer for timer in self.due if timer not in ready]
        for timer in ready:
            timer.callback(*timer.args)
        self.turn()

    def turn(self):
        """Have what was to happen soon happen."""
        while self.soon:
            callback, args = self.soon.popleft()
            callback(*args)


def seat(dispatcher, *sources):
    """Have the dispatcher seat the tasks of these runs; its first worker."""
    for source in sources:
        dispatcher.enter(source)
    dispatcher.dispatch()
    return dispatcher.executor.workers[0]


def began(dispatcher, worker):
    """The worker receives a task and says that it began."""
    order = worker.receive()
    reports = [Started(order.key), Opened(order.key.run)]
    dispatcher.on_reports(worker, reports)
    return order


def success(order):
    """A worker's report that the task has succeeded."""
    return Succeeded(order.key, 0.0, Outcome(), NOWHERE)


def failure(order):
    """A worker's report that the task has failed."""
    return Failed(order.key, 0.0, "ValueError", "", "trace", True, NOWHERE)


LIMIT = {"timeout": {"seconds": 7.0}}


async def test_a_task_that_takes_too_long_is_stopped_and_killed_after_its_grace(make):
    """With the worker that it runs in; what stood behind it is run elsewhere."""
    dispatcher, source = make(), Source(1, [1, 2], **LIMIT)
    worker = seat(dispatcher, source)
    began(dispatcher, worker)
    dispatcher._loop.fire(7.0)
    assert worker.verbs == ["ask_to_stop"]
    dispatcher._loop.fire(5.0)
    assert worker.verbs == ["ask_to_stop", "destroy"]
    dispatcher.on_exit(worker, "was killed by SIGKILL")
    assert source.lost() == [(1, "TaskTimeoutError", "it took longer than 7 s")]
    assert dispatcher.executor.workers[1].receive().key.task == 2


async def test_importing_the_flow_does_not_count_as_a_tasks_time(make):
    """A timeout is for the step: it begins when the worker has what it needs."""
    dispatcher, source = make(), Source(1, [1], **LIMIT)
    worker = seat(dispatcher, source)
    order = worker.receive()
    dispatcher.on_reports(worker, [Started(order.key)])
    dispatcher._loop.fire(7.0)
    assert worker.verbs == []
    dispatcher.on_reports(worker, [Opened(1)])
    dispatcher._loop.fire(7.0)
    assert worker.verbs == ["ask_to_stop"]


async def test_a_timeout_between_a_tasks_end_and_its_report_hits_nobody(make):
    """The worker is at the next task already: it is not killed, and the report counts."""
    dispatcher = make()
    source, other = Source(1, [1], **LIMIT), Source(2, [2])
    worker = seat(dispatcher, source, other)
    first = began(dispatcher, worker)
    second = worker.receive()  # so the first has ended; the engine has not heard of it yet
    dispatcher._loop.fire(7.0)
    assert worker.verbs == []
    reports = [success(first), Started(AttemptKey(2, 2, 0)), success(second)]
    dispatcher.on_reports(worker, reports)
    assert (source.succeeded(), other.succeeded()) == ([1], [2])
    assert source.lost() == other.lost() == []


async def test_a_task_that_ended_in_time_counts_though_its_worker_was_killed(make):
    """The report was on its way when the time was over."""
    dispatcher, source = make(), Source(1, [1], **LIMIT)
    worker = seat(dispatcher, source)
    order = began(dispatcher, worker)
    dispatcher._loop.fire(7.0)
    dispatcher.on_reports(worker, [success(order)])
    dispatcher.on_exit(worker, "was killed by SIGKILL")
    assert (source.succeeded(), source.lost()) == ([1], [])


async def test_a_task_that_fails_by_itself_just_when_its_time_is_over_tells_why(make):
    """What the stop raises is no `ValueError`: that is the task's own failure."""
    dispatcher, source = make(), Source(1, [1], **LIMIT)
    worker = seat(dispatcher, source)
    order = began(dispatcher, worker)
    dispatcher._loop.fire(7.0)
    assert worker.verbs == ["ask_to_stop"]
    dispatcher.on_reports(worker, [failure(order)])
    dispatcher.on_exit(worker, "was killed by SIGKILL")
    assert [fact.exception_type for fact in source.told if isinstance(fact, Failed)] == [
        "ValueError"
    ]
    assert source.lost() == []


async def test_a_task_that_ends_in_its_grace_costs_the_next_one_nothing(make):
    """The worker is at the next task when the grace is over, and the report is on its way."""
    dispatcher, source, other = make(), Source(1, [1]), Source(2, [])
    worker = seat(dispatcher, source, other)
    began(dispatcher, worker)
    dispatcher.stop(source, "enough")
    assert worker.verbs == ["ask_to_stop"]
    worker.send(StartTask(AttemptKey(2, 2, 0), "work", (), (), b"", ()))
    worker.receive()
    dispatcher._loop.fire(5.0)
    assert worker.verbs == ["ask_to_stop"]


async def test_cancelling_a_run_leaves_the_task_of_another_alone(make):
    """A worker that has gone on to another run's task gets no signal."""
    dispatcher, source, other = make(), Source(1, [1]), Source(2, [2])
    worker = seat(dispatcher, source, other)
    first = began(dispatcher, worker)
    second = worker.receive()
    dispatcher.stop(source, "enough")
    assert worker.verbs == []
    dispatcher.on_reports(worker, [success(first), Started(AttemptKey(2, 2, 0)), success(second)])
    assert (source.succeeded(), other.succeeded()) == ([1], [2])


async def test_cancelling_a_run_gives_back_what_another_run_had_queued_behind(make):
    """The task at work is stopped; that of the other run finds another worker."""
    dispatcher, source, other = make(), Source(1, [1]), Source(2, [2])
    worker = seat(dispatcher, source, other)
    began(dispatcher, worker)
    dispatcher.stop(source, "enough")
    assert worker.verbs == ["ask_to_stop"]
    dispatcher.on_exit(worker, "exited with status 1")
    assert source.lost() == [(1, "TaskCancelledError", "enough")]
    assert dispatcher.executor.workers[1].receive().key.task == 2
    assert other.lost() == []


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_task_that_failed_by_itself_while_it_was_being_stopped_tells_why(make, is_async):
    """Its own exception is not hidden behind the cancellation; what the stop raised is one."""
    for raised, told in (
        ("ValueError", []),
        ("SystemExit", [(1, "TaskCancelledError", "enough")]),
        ("asyncio.exceptions.CancelledError", [(1, "TaskCancelledError", "enough")]),
    ):
        dispatcher, source = make(), Source(1, [1], is_async=is_async)
        worker = seat(dispatcher, source)
        order = began(dispatcher, worker)
        dispatcher.stop(source, "enough")
        dispatcher.on_reports(worker, [failure(order)._replace(exception_type=raised)])
        assert source.lost() == told
        assert isinstance(source.told[-1], Lost if told else Failed)


async def test_a_task_whose_start_is_heard_of_after_its_end_was_ordered_keeps_its_grace(make):
    """Its timeout does not put off the kill."""
    dispatcher, source = make(), Source(1, [1], **LIMIT)
    worker = seat(dispatcher, source)
    order = worker.receive()
    dispatcher.stop(source, "enough")
    dispatcher.on_reports(worker, [Started(order.key), Opened(1)])
    dispatcher._loop.fire(5.0)
    assert worker.verbs == ["ask_to_stop", "destroy"]


async def test_a_worker_whose_task_outlives_sigterm_is_replaced(make):
    """A step that ends in its own time keeps no place from others."""
    dispatcher, source, other = make(), Source(1, [1]), Source(2, [])
    worker = seat(dispatcher, source, other)
    order = began(dispatcher, worker)
    dispatcher.stop(source, "enough")
    dispatcher.on_reports(worker, [success(order)])
    assert isinstance(worker.waiting[-1], ShutDown)
    other.tasks.append(2)
    dispatcher.on_exit(worker, "exited with status 0")
    dispatcher.dispatch(other)
    assert dispatcher.executor.workers[1].receive().key.task == 2


async def test_neighbours_of_an_async_task_that_has_to_be_killed_are_told_why(make):
    """They have lost one attempt, by no fault of theirs and not by being cancelled."""
    dispatcher = make()
    stuck, other = Source(1, [1], is_async=True, **LIMIT), Source(2, [2], is_async=True)
    worker = seat(dispatcher, stuck, other)
    began(dispatcher, worker)
    began(dispatcher, worker)
    dispatcher._loop.fire(7.0)
    assert worker.verbs == []  # it is cancelled first
    dispatcher.on_reports(worker, [Stopping(AttemptKey(1, 1, 0))])
    dispatcher._loop.fire(5.0)
    assert worker.verbs == ["destroy"]
    dispatcher.on_exit(worker, "was killed by SIGKILL")
    assert stuck.lost() == [(1, "TaskTimeoutError", "it took longer than 7 s")]
    ((task_id, error, how),) = other.lost()
    assert (task_id, error) == (2, "WorkerDiedError")
    assert "a task of work took longer than 7 s" in how


@pytest.fixture
async def side_by_side(make):
    """A worker with two async tasks: one has a timeout, the other blocks the loop of both."""
    dispatcher = make()
    late, other = Source(1, [1], is_async=True, **LIMIT), Source(2, [2], is_async=True)
    worker = seat(dispatcher, late, other)
    orders = [began(dispatcher, worker), began(dispatcher, worker)]
    dispatcher.on_reports(worker, [Blocked(AttemptKey(2, 2, 0), 1.0, "somewhere")])
    return dispatcher, worker, late, other, orders


async def test_a_task_that_cannot_be_told_of_its_timeout_has_failed_all_the_same(side_by_side):
    """And its worker lives: it is another one that blocks the loop."""
    dispatcher, worker, late, other, (_, order) = side_by_side
    dispatcher._loop.fire(7.0)
    assert late.lost() == []
    dispatcher._loop.fire(1.0)
    assert late.lost() == [(1, "TaskTimeoutError", "it took longer than 7 s")]
    dispatcher._loop.fire(5.0)
    assert worker.verbs == []
    dispatcher.on_reports(worker, [success(order)])
    assert other.succeeded() == [2]


async def test_what_comes_of_an_attempt_that_counts_as_ended_is_passed_over(side_by_side):
    """Be it a success: its next attempt may have begun."""
    dispatcher, worker, late, _, (order, _) = side_by_side
    dispatcher._loop.fire(7.0)
    dispatcher._loop.fire(1.0)
    told = len(late.told)
    dispatcher.on_reports(worker, [Stopping(AttemptKey(1, 1, 0)), success(order)])
    assert len(late.told) == told
    dispatcher._loop.fire(5.0)
    assert worker.verbs == []


async def test_an_attempt_that_counts_as_ended_and_goes_on_though_it_was_told_is_killed(
    side_by_side,
):
    """Once the loop turns again, it has the grace like any other."""
    dispatcher, worker, _, other, (_, order) = side_by_side
    dispatcher._loop.fire(7.0)
    dispatcher._loop.fire(1.0)
    dispatcher.on_reports(worker, [success(order), Stopping(AttemptKey(1, 1, 0))])
    assert other.succeeded() == [2]
    dispatcher._loop.fire(5.0)
    assert worker.verbs == ["destroy"]


async def test_who_blocks_its_loop_beyond_its_own_time_is_killed(side_by_side):
    """It fails soon after its time, and its worker is killed after the grace."""
    dispatcher, worker, late, other, _ = side_by_side
    dispatcher.on_reports(worker, [Blocked(AttemptKey(1, 1, 0), 1.0, "somewhere")])
    dispatcher._loop.fire(7.0)
    dispatcher._loop.fire(1.0)
    assert late.lost() == [(1, "TaskTimeoutError", "it took longer than 7 s")]
    assert worker.verbs == []
    dispatcher._loop.fire(5.0)
    assert worker.verbs == ["destroy"]
    dispatcher.on_exit(worker, "was killed by SIGKILL")
    assert len(late.lost()) == 1
    assert [error for _, error, _ in other.lost()] == ["WorkerDiedError"]


async def test_cancelling_a_run_does_not_kill_the_worker_that_another_runs_task_blocks(
    side_by_side,
):
    """After the grace the task counts as cancelled, and the other run's goes on."""
    dispatcher, worker, late, other, (_, order) = side_by_side
    dispatcher.stop(late, "enough")
    dispatcher._loop.fire(5.0)
    assert worker.verbs == []
    assert late.lost() == [(1, "TaskCancelledError", "enough")]
    dispatcher.on_reports(worker, [success(order)])
    assert other.succeeded() == [2]


async def test_a_blocked_loop_gets_no_further_tasks(side_by_side):
    """They have another worker, or wait until it turns again."""
    dispatcher, worker, late, _, _ = side_by_side
    waiting = len(worker.waiting)
    late.tasks.append(3)
    dispatcher.dispatch(late)
    assert (len(worker.waiting), len(dispatcher.executor.workers)) == (waiting, 1)
    dispatcher.on_reports(worker, [Blocked(AttemptKey(2, 2, 0), 1.5, "")])
    assert len(worker.waiting) == waiting + 1
    dispatcher.on_reports(worker, [Blocked(AttemptKey(2, 2, 0), 1.0, "somewhere")])
    dispatcher._loop.turn()
    assert len(worker.waiting) == waiting
    dispatcher.executor.size = 2
    dispatcher.dispatch(late)
    assert dispatcher.executor.workers[1].receive().key.task == 3


async def test_an_async_task_that_is_stopped_tells_where_it_was(make):
    """The traceback of its cancellation is kept with the timeout."""
    dispatcher, source = make(), Source(1, [1], is_async=True, **LIMIT)
    worker = seat(dispatcher, source)
    order = began(dispatcher, worker)
    dispatcher._loop.fire(7.0)
    stopped = failure(order)._replace(exception_type="asyncio.exceptions.CancelledError")
    dispatcher.on_reports(worker, [stopped])
    (lost,) = [fact for fact in source.told if isinstance(fact, Lost)]
    name = "asyncflow.errors.TaskTimeoutError"
    assert lost.exception_type == name
    assert lost.traceback == f"trace\n{name}: it took longer than 7 s\n"


async def test_an_async_task_that_swallows_its_cancellation_and_succeeds_has_succeeded(make):
    """What it made is there; only one that goes on and on is killed."""
    dispatcher, source = make(), Source(1, [1], is_async=True, **LIMIT)
    worker = seat(dispatcher, source)
    order = began(dispatcher, worker)
    dispatcher._loop.fire(7.0)
    dispatcher.on_reports(worker, [success(order)])
    dispatcher._loop.fire(5.0)
    assert (source.succeeded(), source.lost(), worker.verbs) == ([1], [], [])


async def test_a_worker_that_dies_before_its_first_word_costs_no_attempt(make):
    """The task goes to the next one."""
    dispatcher, source = make(), Source(1, [1])
    worker = seat(dispatcher, source)
    worker.receive()
    dispatcher.on_exit(worker, "was killed by SIGKILL")
    assert source.told == []
    assert dispatcher.executor.workers[1].receive().key.task == 1


async def test_workers_that_never_say_a_word_end_the_run(make):
    """Not one after the other for ever: three in a row are enough, and the error tells how."""
    dispatcher, source = make(), Source(1, [1])
    seat(dispatcher, source)
    for number in range(3):
        dispatcher.on_exit(dispatcher.executor.workers[number], "was killed by SIGILL")
    (error,) = source.abandoned
    assert isinstance(error, PoolError)
    assert "SIGILL" in str(error)


async def test_what_an_idle_worker_does_not_take_others_do(make):
    """A stopped worker holds up no task; it is killed in the end, and its place is free."""
    dispatcher, source = make(size=2), Source(1, [1])
    stopped = seat(dispatcher, source)
    for _ in range(SILENT_POLLS):
        dispatcher._loop.fire(module._POLL_SECONDS)
    assert not stopped.waiting or not isinstance(stopped.waiting[-1], StartTask)
    order = began(dispatcher, dispatcher.executor.workers[1])
    assert order.key.task == 1
    for _ in range(module._KILLED_POLLS):
        dispatcher._loop.fire(module._POLL_SECONDS)
    assert stopped.verbs == ["destroy"]
    assert dispatcher.executor.workers[1].verbs == []
    dispatcher.on_exit(stopped, "was killed by SIGKILL")
    assert source.lost() == []


async def test_the_only_worker_that_does_not_take_its_order_is_killed_too(make):
    """It has nothing any more, and is waited for all the same."""
    dispatcher, source = make(), Source(1, [1])
    stopped = seat(dispatcher, source)
    for _ in range(module._KILLED_POLLS):
        dispatcher._loop.fire(module._POLL_SECONDS)
    assert stopped.verbs == ["destroy"]
    dispatcher.on_exit(stopped, "was killed by SIGKILL")
    assert began(dispatcher, dispatcher.executor.workers[1]).key.task == 1


async def test_a_worker_that_answers_at_last_is_given_its_task_again(make):
    """It is asked whether it is there, and was slow, not stopped."""
    dispatcher, source = make(), Source(1, [1])
    worker = seat(dispatcher, source)
    for _ in range(SILENT_POLLS):
        dispatcher._loop.fire(module._POLL_SECONDS)
    assert [type(order) for order in worker.waiting][-1] is Ping
    dispatcher.on_reports(worker, [Pong()])
    assert began(dispatcher, worker).key.task == 1
    assert worker.verbs == []


async def test_no_worker_is_silent_while_its_node_does_not_answer(make):
    """Its reports may be on their way: it is killed for its silence only when they would come."""
    dispatcher, source = make(), Source(1, [1])
    worker = seat(dispatcher, source)
    worker.is_heard = False
    for _ in range(module._KILLED_POLLS):
        dispatcher._loop.fire(module._POLL_SECONDS)
    assert worker.verbs == []
    worker.is_heard = True
    for _ in range(module._KILLED_POLLS):
        dispatcher._loop.fire(module._POLL_SECONDS)
    assert worker.verbs == ["destroy"]


async def test_a_worker_that_takes_its_order_late_is_left_alone(make):
    """It was slow, not stopped."""
    dispatcher, source = make(), Source(1, [1])
    worker = seat(dispatcher, source)
    for _ in range(SILENT_POLLS - 1):
        dispatcher._loop.fire(module._POLL_SECONDS)
    began(dispatcher, worker)
    for _ in range(module._KILLED_POLLS):
        dispatcher._loop.fire(module._POLL_SECONDS)
    assert worker.verbs == []


async def test_a_failed_attempt_does_not_end_the_next_ones_timer(make):
    """Each attempt has the whole time: the timer of the first is gone with it."""
    dispatcher, source = make(), Source(1, [1], **LIMIT)
    worker = seat(dispatcher, source)
    order = began(dispatcher, worker)
    dispatcher.on_reports(worker, [failure(order)])
    assert all(timer.cancelled for timer in dispatcher._loop.due if timer.seconds == 7.0)


class Interrupted(Source):
    """A run that exceptions break off: when it is told something, and when it is given up."""

    def __init__(self, number, tasks):
        super().__init__(number, tasks)
        self.given_up = []

    def tell(self, *facts):
        raise SignalError

    def give_up(self, by):
        self.given_up.append(by)
        if len(self.given_up) == 1:
            raise SignalError


async def test_a_run_that_enters_later_is_not_given_up_for_what_was_broken_off(make):
    """Two exceptions broke off what was to be done for another; its worker gets tasks of both."""
    dispatcher, earlier, later = make(), Interrupted(1, [1, 2]), Source(2, [1])
    worker = seat(dispatcher, earlier)
    with pytest.raises(SignalError):
        dispatcher.on_reports(worker, [Started(worker.receive().key)])
    dispatcher.enter(later)
    look_again(asyncio.get_running_loop())
    assert len(earlier.given_up) == 2


async def test_no_worker_is_taken_for_ever_by_a_task_that_it_was_not_sent(make, monkeypatch):
    """An exception came when the task counted as sent: the worker would never tell of its end."""
    dispatcher, given_up = make(), list[str]()
    worker = seat(dispatcher, Source(1, [1]))
    dispatcher.on_reports(worker, [success(began(dispatcher, worker))])
    broken = Source(2, [1])
    monkeypatch.setattr(broken, "give_up", given_up.append)
    with monkeypatch.context() as patched:
        patched.setattr(worker, "send", Interrupted(3, []).tell)
        with pytest.raises(SignalError):
            dispatcher.enter(broken)
    assert given_up
    assert worker.verbs == ["destroy"]
    dispatcher.leave(broken)
    dispatcher.on_exit(worker, "was killed")
    seat(dispatcher, Source(4, [1]))
    assert [each.tasks for each in dispatcher.executor.workers if each is not worker] == [[(4, 1)]]
