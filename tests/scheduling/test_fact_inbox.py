"""Which facts go to the journal together, and what follows from failures before they are there."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import pytest

from asyncflow.events import Event, RunStarted, TaskEvent, TaskFailed, TaskStarted
from asyncflow.events.selection import EventFilter
from asyncflow.events.types import to_microseconds
from asyncflow.flow.graph import Graph
from asyncflow.flow.node import Node
from asyncflow.scheduling.commands import RetryTask, Verdict
from asyncflow.scheduling.fact_inbox import FactInbox
from asyncflow.scheduling.facts import Lost, Ran
from asyncflow.scheduling.facts_to_events import OUTPUT_BYTES, Batch, Recorder
from asyncflow.scheduling.gangs import Gangs
from asyncflow.scheduling.item_streams import ItemStreams
from asyncflow.scheduling.plan import Plan
from asyncflow.store.run_index import RunIndex
from asyncflow.values import ITEM_DIGEST_BYTES, Outcome
from asyncflow.workers.messages import (
    AttemptKey,
    Failed,
    Logged,
    Started,
    StartTask,
    Succeeded,
    Yielded,
    pack_report,
)
from asyncflow.workers.report_stream import ReportStream, WholeAttempts
from tests.support.call_counts import counted_calls

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

NOW = 1_795_472_682_985_927


class Clock:
    """An event loop's clock, which the tests set, and its timers."""

    def __init__(self):
        self.now = 1000.0
        self.timers: list[tuple[float, Callable[[], None]]] = []

    def time(self):
        """The time."""
        return self.now

    def call_at(self, when, call, *args):
        """Note what is to be called."""
        self.timers.append((when, partial(call, *args)))


class Mail:
    """A run whose tasks all run, its inbox, and what that has asked for."""

    def __init__(self, width, options=None, *, parallel=False, packets=False):
        over: dict[str, Any] = {"num_parallel": "n"} if parallel else {"foreach": "items"}
        options = {"parallel": True, **(options or {})} if parallel else options or {}
        graph = Graph(
            "F",
            [
                Node("start", ("work",), is_start=True, **over),
                Node("work", ("join",), options=options),
                Node("join", ("end",), is_join=True),
                Node("end", is_end=True),
            ],
        )
        self.plan, self.gangs = Plan(graph), Gangs()
        index = RunIndex(graph, flow="F", run_id="1", started=NOW, tags=())
        streams = ItemStreams(lambda _: 0, lambda _: False, lambda _: None, lambda *_: None)
        self.recorder = Recorder("F", "1", index, streams)
        self.added = self.failing = 0
        self.stopped: list[tuple[set[int], str]] = []
        self.size = 0
        self.clock = Clock()
        self.inbox = FactInbox(
            self.plan,
            self.recorder,
            self.gangs,
            loop=cast("asyncio.AbstractEventLoop", self.clock),
            now=lambda: NOW + round((self.clock.now - 1000) * 1e6),
            on_added=self._on_added,
            on_run_failing=self._on_failing,
            stop_tasks=lambda tasks, reason: self.stopped.append((set(tasks), reason)),
        )
        self.plan.handle(RunStarted(flow="F", run_id="1", seq=1, time=datetime.now(UTC), graph={}))
        (start,) = self._take()
        self.inbox.add(Succeeded(start, 0.1, Outcome(fanout=width), (0, 0)))
        self.publish(self.collect())
        self.keys = self._take_packet(width) if packets else self._take(width)
        self.added = 0

    def _on_added(self):
        self.added += 1

    def _on_failing(self):
        self.failing += 1

    def _take(self, limit=1):
        tasks = self.plan.take(limit)
        for task in tasks:
            self.recorder.open(task)
        keys = [AttemptKey(1, task.task_id, task.attempt) for task in tasks]
        if self.plan.graph[tasks[0].step].is_gang:
            if tasks[0].caught is None:
                orders = [StartTask(key, "work", (), [], b"", (), ()) for key in keys]
                self.gangs.begin(tasks, orders)
            else:
                for key in keys:
                    self.gangs.begin_stand_in(key)
        return keys

    def _take_packet(self, most):
        items = self.plan.take_items(most)
        assert items is not None
        self.recorder.open_items(items)
        return [AttemptKey(1, items.first + at, 0) for at in range(items.number)]

    def batch(self):
        """One without records."""
        return Batch(self.size, NOW + round((self.clock.now - 1000) * 1e6))

    def collect(self, has_time=lambda: True):
        """The next batch."""
        batch = self.batch()
        self.inbox.collect(batch, has_time)
        return batch

    def publish(self, batch):
        """The journal has it: the plan hears of it, and what it decides is returned."""
        self.size = batch.at
        return [command for event in batch.events for command in self.plan.handle(event)]

    def stand_ins(self, commands):
        """The stand-ins that are ordered are taken."""
        for command in commands:
            self.plan.hand_on(command.task_id)
        return self._take(len(commands))


def kinds(batch):
    """Kind and task of each event of a batch."""
    made = EventFilter[TaskEvent]().pick(batch.news)
    return [(type(event).__name__, int(event.task_id)) for event in made]


def failed(key):
    """A report of a failure."""
    return Failed(key, 0.1, "ValueError", "no", "", True, (0, 0))


def succeeded(key):
    """A report of a success."""
    return Succeeded(key, 0.1, Outcome(), (0, 0))


def ran(keys):
    """Tasks have begun and succeeded."""
    return ran_as([succeeded(key) for key in keys])


def ran_as(ends):
    """Tasks have begun, and succeeded like this."""
    packed = [pack_report(each) for end in ends for each in (Started(end.key), end)]
    (attempts,) = ReportStream().feed_together(b"".join(packed))
    assert isinstance(attempts, WholeAttempts)
    return Ran(41, "", attempts)


def lost(key):
    """The worker is gone."""
    return Lost(key, "WorkerDied", "it was killed", may_retry=True)


def test_a_batch_has_so_many_facts_at_most_and_few_if_there_is_no_time():
    """The rest stays, in order; each fact has asked for a batch."""
    mail = Mail(400)
    for key in mail.keys:
        mail.inbox.add(Started(key))
    assert mail.added == 400
    assert len(kinds(mail.collect(has_time=lambda: False))) == 64
    assert len(kinds(mail.collect())) == 256
    assert len(kinds(mail.collect())) == 80
    assert not mail.inbox.facts


def test_tasks_that_ran_count_as_two_facts_each():
    """So a run that lags behind is noticed, and a batch is full as soon as with single facts."""
    mail = Mail(400)
    for at in range(0, 400, 20):
        mail.inbox.add(ran(mail.keys[at : at + 20]))
    assert (mail.added, len(mail.inbox)) == (20, 800)
    assert len(kinds(mail.collect(has_time=lambda: False))) == 80
    assert len(kinds(mail.collect())) == 280
    assert len(mail.inbox) == 440


def test_nodes_of_a_gang_that_ran_come_in_as_a_gang():
    """Their ends are together, as if the reports had come one by one."""
    mail = Mail(2, parallel=True)
    mail.inbox.add(ran(mail.keys))
    batch = mail.collect()
    begun, ended = ("TaskStarted", "TaskSucceeded")
    assert kinds(batch) == [(begun, 2), (begun, 3), (ended, 2), (ended, 3)]
    started = EventFilter[TaskStarted]().pick(batch.news)[:2]
    assert [event.pid for event in started] == [41, 41]


@pytest.mark.parametrize("together", [False, True])
async def test_an_attempt_that_has_yielded_fewer_items_than_were_announced_has_failed(together):
    """Whether its success is told alone or with its start: others may have had the rest."""
    mail = Mail(1)
    (key,) = mail.keys
    mail.inbox.add(Yielded(key, 0, 2, b"", b"", bytes(2 * ITEM_DIGEST_BYTES)))
    mail.collect()
    ended = Succeeded(key, 0.1, Outcome(fanout=1), (0, 0))
    mail.inbox.add(ran_as([ended]) if together else ended)
    event = EventFilter[TaskEvent]().pick(mail.collect().news)[-1]
    mail.recorder.streams.close()
    assert isinstance(event, TaskFailed)
    assert event.exception_type == "asyncflow.errors.TransitionError"


def test_the_start_of_a_short_task_waits_for_its_end():
    """For as long as that takes as a rule; both are then in one batch."""
    mail = Mail(2)
    mail.recorder.expected["work"] = 0.002
    mail.inbox.add(Started(mail.keys[0]))
    assert (mail.added, mail.inbox.is_due) == (0, False)
    mail.inbox.add(succeeded(mail.keys[0]))
    assert (mail.added, mail.inbox.is_due) == (1, True)
    assert kinds(mail.collect()) == [("TaskStarted", 2), ("TaskSucceeded", 2)]


def test_the_start_of_a_task_that_takes_longer_than_others_is_written_soon():
    """A timer has it written, also one that is early by the loop's clock, as uvloop's may be."""
    mail = Mail(2)
    mail.recorder.expected["work"] = 0.002
    mail.inbox.add(Started(mail.keys[0]))
    ((due, call),) = mail.clock.timers
    assert due - mail.clock.now == pytest.approx(0.005)  # twice as long, and 1 ms to store it
    mail.clock.now = due - 0.0005
    call()
    assert mail.added == 1
    assert mail.inbox.is_due


def test_a_timer_ends_no_later_wait():
    """It was for a start that was written meanwhile, with its end."""
    mail = Mail(2)
    mail.recorder.expected["work"] = 0.002
    first, second = mail.keys
    mail.inbox.add(Started(first))
    ((due, call),) = mail.clock.timers
    mail.inbox.add(Succeeded(first, 0.001, Outcome(), (0, 0)))
    mail.collect()
    mail.clock.now = due - 0.001
    mail.inbox.add(Started(second))
    call()
    assert (mail.added, mail.inbox.is_due) == (1, False)


def test_a_start_is_written_if_its_timer_was_lost():
    """Whoever looks after the time finds that it is due."""
    mail = Mail(2)
    mail.recorder.expected["work"] = 0.002
    mail.inbox.add(Started(mail.keys[0]))
    ((due, _),) = mail.clock.timers
    mail.clock.now = due
    assert mail.inbox.is_due


def times(batch):
    """When the events of a batch were, in microseconds since the first."""
    return [to_microseconds(event.time) - NOW for event in EventFilter[Event]().pick(batch.news)]


def test_a_start_that_has_waited_has_the_time_at_which_it_came_in():
    """So an attempt is as long in the journal as it was, also if one write has all of it."""
    mail = Mail(3)
    mail.recorder.expected["work"] = 0.002
    first, second, third = mail.keys
    mail.inbox.add(Started(first), Started(second))
    mail.clock.now += 0.003
    mail.inbox.add(Started(third), succeeded(first))
    mail.clock.now += 0.001
    assert times(mail.collect()) == [0, 0, 4000, 4000]
    assert times(mail.collect()) == []
    mail.clock.now += 0.005
    mail.inbox.add(succeeded(second))
    assert times(mail.collect()) == [9000]


def test_the_time_of_a_start_that_has_waited_is_not_before_that_of_the_record_before():
    """Another record was written meanwhile: that a task is tried again."""
    mail = Mail(2)
    mail.recorder.expected["work"] = 0.002
    first, second = mail.keys
    mail.inbox.add(failed(first))
    mail.collect()
    mail.inbox.add(Started(second))
    mail.clock.now += 0.002
    mail.recorder.retried(RetryTask("work", first.task, 1, (0,), 0.0), batch := mail.batch())
    assert times(batch) == [2000]
    mail.clock.now += 0.001
    mail.inbox.add(Succeeded(second, 0.001, Outcome(), (0, 0)))
    assert times(mail.collect()) == [2000, 3000]


@pytest.mark.parametrize("usual", [None, 0.1], ids=["unknown", "long"])
def test_other_starts_do_not_wait(usual):
    """Nobody knows how long a step's first task takes; others take long."""
    mail = Mail(2)
    if usual is not None:
        mail.recorder.expected["work"] = usual
    mail.inbox.add(Started(mail.keys[0]))
    assert mail.added == 1
    assert mail.inbox.is_due


@pytest.mark.parametrize("further", [succeeded, failed, lost, lambda key: Logged(key, 0, b"x")])
def test_a_start_does_not_wait_once_there_is_something_else(further):
    """Whatever task it is about; and what comes before it in order stays before it."""
    mail = Mail(2)
    mail.recorder.expected["work"] = 0.002
    first, second = mail.keys
    mail.inbox.add(Started(second), Started(first))
    mail.inbox.add(further(first))
    assert mail.added == 1
    assert mail.inbox.is_due
    assert [task for _, task in kinds(mail.collect())][:2] == [3, 2]
    assert not mail.inbox.is_due


def test_what_facts_of_short_tasks_cost():
    """From the inbox to the records, the index and the plan, without a call for each step.

    For each task, its start and its end, it was 115 calls, then 51, then 23, and now 9.
    """
    mail = Mail(100, packets=True)
    facts = [ran(mail.keys[at : at + 20]) for at in range(0, 100, 20)]
    with counted_calls() as calls:
        mail.inbox.add(*facts)
        mail.publish(mail.collect())
    assert not mail.inbox.facts
    assert calls[0] / 100 < 12


def test_a_join_has_its_inputs_in_order_whether_tasks_were_told_together_or_alone():
    """One of a packet has begun alone, and ends after those behind it."""
    mail = Mail(6, packets=True)
    mail.inbox.add(Started(mail.keys[2]))
    mail.publish(mail.collect())
    mail.inbox.add(ran(mail.keys[3:]), ran(mail.keys[:2]))
    mail.publish(mail.collect())
    assert (mail.plan.unfinished, mail.plan.ready) == (1, 0)
    mail.inbox.add(succeeded(mail.keys[2]))
    mail.publish(mail.collect())
    (join,) = mail.plan.take(1)
    assert list(join.inputs) == [key.task for key in mail.keys]


def test_a_task_of_a_packet_can_be_given_back_alone():
    """It is ready again, and its neighbours go on."""
    mail = Mail(3, packets=True)
    first, second, third = mail.keys
    mail.recorder.drop(second.task)
    mail.plan.give_back(second.task)
    mail.inbox.add(ran([first]), ran([third]))
    mail.publish(mail.collect())
    (again,) = mail.plan.take(1)
    assert (again.task_id, again.path, mail.plan.unfinished) == (second.task, (1,), 1)


def test_output_that_waits_is_counted_and_fills_a_batch():
    """Bytes are no longer counted when a batch has them."""
    mail = Mail(1)
    for _ in range(3):
        mail.inbox.add(Logged(mail.keys[0], 0, b"x" * (OUTPUT_BYTES - 1)))
    assert mail.inbox.output_bytes == 3 * (OUTPUT_BYTES - 1)
    mail.collect()
    assert mail.inbox.output_bytes == OUTPUT_BYTES - 1


def test_a_batch_ends_with_the_failure_that_ends_the_run():
    """Only then can the plan say of the next failure that it ends nothing more."""
    mail = Mail(3)
    first, second, third = mail.keys
    for fact in (succeeded(first), failed(second), lost(third)):
        mail.inbox.add(fact)
    assert mail.failing == 2
    assert mail.inbox.has_failures
    batch = mail.collect()
    assert kinds(batch) == [("TaskSucceeded", first.task), ("TaskFailed", second.task)]
    mail.publish(batch)
    assert kinds(mail.collect()) == [("TaskFailed", third.task)]
    assert not mail.inbox.has_failures


def test_a_failure_that_is_retried_ends_nothing():
    """It is in one batch with what follows."""
    mail = Mail(2, {"retry": {"times": 1, "seconds": 0, "backoff": 1, "on": []}})
    mail.inbox.add(failed(mail.keys[0]))
    mail.inbox.add(succeeded(mail.keys[1]))
    assert mail.failing == 0
    assert mail.inbox.verdict(failed(mail.keys[0])) is Verdict.RETRY
    assert [name for name, _ in kinds(mail.collect())] == ["TaskFailed", "TaskSucceeded"]


def test_a_gang_comes_in_when_its_last_node_has_ended():
    """The first failure stops the others, and is the only one that does."""
    mail = Mail(3, parallel=True)
    first, second, third = mail.keys
    mail.inbox.add(succeeded(second))
    mail.inbox.add(failed(third))
    assert mail.stopped == [({first.task}, "node 2 of its gang has failed")]
    assert mail.added == 0
    mail.inbox.add(lost(first))
    assert (mail.added, mail.failing, len(mail.stopped)) == (1, 1, 1)
    batch = mail.collect()
    assert kinds(batch) == [("TaskFailed", key.task) for key in (third, second, first)]


def test_no_success_of_a_gang_is_announced_before_the_last_stand_in_has_ended():
    """A crash before that finds a gang that has to run as a whole, of which nobody has heard."""
    mail = Mail(2, {"catch": {"var": None, "print_exception": False}}, parallel=True)
    first, second = mail.keys
    mail.inbox.add(succeeded(first))
    mail.inbox.add(lost(second))
    batch = mail.collect()
    assert kinds(batch) == [("TaskFailed", second.task)]
    (stand_in,) = mail.stand_ins(mail.publish(batch))
    mail.inbox.add(succeeded(stand_in))
    assert kinds(mail.collect()) == [("TaskSucceeded", first.task), ("TaskSucceeded", second.task)]
    assert len(mail.gangs) == 0


@pytest.mark.parametrize("when", ["stand-in fails", "cancelled before", "cancelled while"])
def test_a_gang_that_loses_a_stand_in_has_not_succeeded_at_all(when):
    """Whether the stand-in itself fails, does not come, or is stopped."""
    mail = Mail(2, {"catch": {"var": None, "print_exception": False}}, parallel=True)
    first, second = mail.keys
    mail.inbox.add(succeeded(first))
    mail.inbox.add(lost(second))
    commands = mail.publish(mail.collect())
    if when != "cancelled before":
        (stand_in,) = mail.stand_ins(commands)
    if when != "stand-in fails":
        mail.plan.cancel("a wish")
        mail.inbox.give_up_stand_ins()
    if when != "cancelled before":
        mail.inbox.add(lost(stand_in))
    names = [name for name, _ in kinds(mail.collect())]
    assert set(names) == {"TaskFailed"}
    assert mail.failing == (when == "stand-in fails")
    assert len(mail.gangs) == 0


def test_a_caught_failure_does_not_count_when_the_run_is_ending_and_another_node_was_stopped():
    """The other node gets no stand-in any more."""
    mail = Mail(2, {"catch": {"var": None, "print_exception": False}}, parallel=True)
    first, second = mail.keys
    mail.inbox.add(failed(first)._replace(outcome=Outcome()))
    mail.plan.cancel("a wish")
    mail.inbox.add(lost(second))
    assert [name for name, _ in kinds(mail.collect())] == ["TaskFailed", "TaskFailed"]
