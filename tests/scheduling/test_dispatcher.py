"""Which ready task goes to which worker: with workers that only note what they are sent."""

from __future__ import annotations

import asyncio
import errno
import math
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from asyncflow.errors import PoolError
from asyncflow.flow.graph import Graph
from asyncflow.flow.node import Node
from asyncflow.scheduling.dispatcher import Dispatcher
from asyncflow.scheduling.facts import Lost, Ran
from asyncflow.scheduling.run_services import BACKLOG_BYTES, RunServices
from asyncflow.values import Outcome
from asyncflow.workers.held_reports import HeldReports
from asyncflow.workers.interface import AHEAD
from asyncflow.workers.messages import (
    AttemptKey,
    Blocked,
    Logged,
    NotStored,
    Opened,
    Opening,
    ShutDown,
    Started,
    StartItems,
    StartTask,
    Storing,
    Succeeded,
    Yielded,
    pack_report,
    pack_to_store,
)
from asyncflow.workers.program_environment import ProgramEnvironment
from asyncflow.workers.report_stream import Reports, ReportStream
from tests.support.call_counts import counted_calls
from tests.support.manual_workers import ManualExecutor
from tests.support.waiting import until


class Source:
    """A run with so many ready tasks of one step, `start`."""

    congested = False
    max_running_tasks = 0

    def __init__(self, number, count, *, seconds=None, is_async=False, priority=0, options=None):
        self.number, self.count, self.priority = number, count, priority
        self.pathspec = f"Flow/{number}"
        start = Node("start", next=("end",), is_async=is_async, options=options or {})
        self.graph = Graph("Flow", [start, Node("end")])
        self.expected = {} if seconds is None else {"start": seconds}
        self.opening = Opening(
            number, "", "Flow", str(number), ProgramEnvironment("", [], {}), False
        )
        self.given_back = []
        self.taken = 0
        self.facts = []
        self.begun = []
        self.backlog_bytes = 0

    @property
    def ready(self):
        return len(self.given_back) + self.count - self.taken

    @property
    def orders(self):
        return self

    def next_step(self):
        return "start" if self.ready else None

    def postpone(self, steps):
        """There is only one step."""
        return False

    def take(self):
        if self.given_back:
            task_id = self.given_back.pop()
        else:
            self.taken += 1
            task_id = self.taken
        return StartTask(AttemptKey(self.number, task_id, 0), "start", (), [], b"", (), ())

    def take_items(self, most):
        """Several tasks at once, unless one that was given back is next."""
        number = min(most, self.count - self.taken)
        if self.given_back or not number:
            return None
        first = self.taken + 1
        self.taken += number
        return StartItems(self.number, first, number, "start", (), first - 1, [], b"")

    def give_back(self, task_id):
        self.given_back.append(task_id)

    def on_started(self, tasks, pid, node):
        """They have begun there."""
        self.begun += [(task, pid, node) for task in tasks]

    def tell(self, *facts):
        self.facts += facts
        self.backlog_bytes += sum(len(each.data) for each in facts if isinstance(each, Logged))

    def abandon(self, error):
        raise error

    def give_up(self, by):
        raise AssertionError(by)


class Uploader:
    """Has uploads that a test ends."""

    waiting_bytes = 20_000

    def __init__(self):
        self.uploads = []

    def add(self, *_):
        self.uploads.append(SimpleNamespace(is_done=False, error=""))
        return self.uploads[-1]

    def hurry(self):
        """Nothing is on its way."""

    def listen(self, _):
        """Nobody need be told."""

    def close(self):
        """Nothing is open."""

    def end_all(self):
        for each in self.uploads:
            each.is_done = True


class Play:
    """A dispatcher, its workers, and what they do."""

    def __init__(self, size, **more):
        self.disk = ThreadPoolExecutor(1)  # never used, so it starts no thread
        services = RunServices(disk=self.disk, syncs=self.disk, grace_seconds=1.0, sync_seconds=1.0)
        self.dispatcher = Dispatcher(
            services, lambda listener: ManualExecutor(listener, size=size), **more
        )
        self.executor = self.dispatcher.executor

    @property
    def workers(self):
        return self.executor.workers

    def begin(self, worker):
        """The worker takes its next task."""
        order = worker.receive()
        self.dispatcher.on_reports(worker, [Started(order.key)])

    def end(self, worker):
        """The worker ends the task that it began first."""
        order = worker.received.popleft()
        done = Succeeded(order.key, 0.001, Outcome(), (0, 0))
        self.dispatcher.on_reports(worker, [done])
        return order.key.run

    def step(self, worker):
        """The worker takes a task and ends it; the run's number."""
        self.begin(worker)
        return self.end(worker)

    def running(self):
        """How many tasks of each run workers have."""
        return Counter(run for worker in self.workers for run, _ in worker.tasks)


@pytest.fixture
async def play(monkeypatch):
    """Makes plays, in which all tasks are assigned at once, and ends them."""
    for name in ("_WORK_SECONDS", "_ALONE_SECONDS"):
        monkeypatch.setattr(f"asyncflow.scheduling.loop_budget.{name}", math.inf)
    made = []

    def make(size, **more):
        made.append(Play(size, **more))
        return made[-1]

    yield make
    for each in made:
        each.dispatcher.close()


async def test_short_tasks_stand_behind_each_other_and_long_ones_do_not(play):
    """A worker has some 20 ms of work at hand."""
    for seconds, most in ((0.0001, AHEAD.tasks), (0.005, 4), (1.0, 1)):
        game = play(1)
        game.dispatcher.enter(Source(1, 1000, seconds=seconds))
        assert len(game.workers[0].tasks) == pytest.approx(most, abs=1)


@pytest.mark.parametrize(
    ("count", "is_async", "workers"),
    [(1, False, 1), (3, False, 3), (9, False, 4), (64, True, 1), (65, True, 2), (200, True, 4)],
)
async def test_tasks_that_one_worker_could_have_at_hand_are_given_to_several(
    play, count, is_async, workers
):
    """A short `def` task rather has a new worker than waits; 64 async ones go to each at first."""
    game = play(4)
    game.dispatcher.enter(Source(1, count, seconds=0.0001, is_async=is_async))
    assert len(game.workers) == workers
    assert game.running()[1] == count


async def test_short_tasks_are_sent_together_while_no_other_run_waits(play):
    """Each packet costs both sides two system calls; but a packet is one run's turn."""
    game = play(2)
    game.dispatcher.enter(Source(1, 1000, seconds=0.0001))
    sent = [order.number for worker in game.workers for order in worker.sent]
    assert sum(sent) == len(game.workers) * AHEAD.tasks
    assert len(sent) <= 8
    game.dispatcher.enter(Source(2, 1000, seconds=0.0001))
    for worker in game.workers:
        worker.sent.clear()
        for _ in range(20):
            game.step(worker)
        assert all(isinstance(order, StartTask) for order in worker.sent)


def read(reports):
    """The reports, as a pool passes them on that has read them together."""
    return Reports(ReportStream().feed_together(b"".join(map(pack_report, reports))))


async def test_what_reports_of_short_tasks_cost(play):
    """They are noted together, and nobody looks for room before a worker has less than enough.

    For each task, its start and its end, it was 43 calls, then 21, then 19, and now it is 6:
    most of these are of the worker that is played here.
    """
    game = play(1)
    game.dispatcher.enter(Source(1, 1000, seconds=0.0001))
    (worker,) = game.workers
    game.begin(worker)
    game.dispatcher.on_reports(worker, [Opened(1)])
    game.end(worker)
    worker.sent.clear()
    total = 0
    for _ in range(10):
        keys = [worker.receive().key for _ in range(32)]
        done = [Succeeded(key, 0.0001, Outcome(), (0, 0)) for key in keys]
        pairs = zip([Started(key) for key in keys], done, strict=True)
        reports = read([each for pair in pairs for each in pair])
        with counted_calls() as calls:
            game.dispatcher.on_reports(worker, reports)
        total += calls[0]
    assert len(worker.sent) <= 11
    assert total / 320 < 8


async def test_a_task_is_told_as_a_whole_if_one_read_has_its_start_and_its_end(play):
    """So are all of a packet; a task that has ended later is told as it goes on."""
    game = play(1)
    source = Source(1, 1000, seconds=0.0001)
    game.dispatcher.enter(source)
    (worker,) = game.workers
    game.begin(worker)
    game.dispatcher.on_reports(worker, [Opened(1)])
    game.end(worker)
    while len(worker.sent) < 2:  # packets
        game.step(worker)
    source.facts.clear()
    first, *keys, last = [worker.receive().key for _ in range(110)]
    done = {key: Succeeded(key, 0.0001, Outcome(), (0, 0)) for key in (first, *keys)}
    game.dispatcher.on_reports(worker, [Started(first)])
    ran = [each for key in keys for each in (Started(key), done[key])]
    game.dispatcher.on_reports(worker, read([done[first], *ran, Started(last)]))
    begun, ended, *whole, begun_last = source.facts
    assert (begun, ended, begun_last) == (Started(first), done[first], Started(last))
    assert len(whole) == 2  # as many as there are packets
    told = [report for fact in whole for report in fact.attempts.reports()]
    assert told == ran
    assert {(type(fact), fact.pid, fact.node) for fact in whole} == {(Ran, worker.pid, "")}


async def test_tasks_that_came_alone_are_told_one_by_one(play):
    """Also if one read has the start and the end of each: a packet stands for none of them."""
    game = play(1)
    source = Source(1, 2)
    game.dispatcher.enter(source)
    (worker,) = game.workers
    key = worker.receive().key
    game.dispatcher.on_reports(worker, [Opened(1)])
    done = Succeeded(key, 0.0001, Outcome(), (0, 0))
    game.dispatcher.on_reports(worker, read([Started(key), done]))
    assert source.facts == [Started(key), done]


async def test_a_start_is_told_alone_if_the_next_report_is_the_end_of_another_task(play):
    """Tasks of one event loop begin and end in any order. The run hears at once where each runs."""
    game = play(1)
    source = Source(1, 4, is_async=True)
    game.dispatcher.enter(source)
    (worker,) = game.workers
    game.dispatcher.on_reports(worker, [Opened(1)])
    keys = [worker.receive().key for _ in range(4)]
    done = [Succeeded(key, 0.0001, Outcome(), (0, 0)) for key in keys]
    reports = [Started(keys[1]), Started(keys[2]), done[1], Started(keys[3]), done[2]]
    game.dispatcher.on_reports(worker, read(reports))
    assert source.facts == reports
    assert source.begun == [(key.task, worker.pid, "") for key in keys[1:]]


@pytest.mark.parametrize("is_over", [False, True])
async def test_a_worker_whose_event_loop_was_blocked_has_tasks_again_once_it_reports(play, is_over):
    """A start or an end shows that the loop turns again."""
    game = play(1)
    game.dispatcher.enter(Source(1, 200, is_async=True))
    (worker,) = game.workers
    game.dispatcher.on_reports(worker, [Opened(1)])
    first, second = (worker.receive().key for _ in range(2))
    game.dispatcher.on_reports(worker, [Started(first)])
    game.dispatcher.on_reports(worker, [Blocked(first, 1.0, "a line")])
    await asyncio.sleep(0)  # what was taken back is told in the next turn
    assert not worker.orders
    done = Succeeded(first, 1.0, Outcome(), (0, 0))
    game.dispatcher.on_reports(worker, [done if is_over else Started(second)])
    game.dispatcher.dispatch()
    assert worker.orders


@pytest.mark.parametrize("is_stored", [False, True])
async def test_a_worker_that_was_to_stop_leaves_once_its_last_step_has_ended(play, is_stored):
    """It has survived until then, and its place is needed; its values may still be uploaded."""
    game = play(1)
    game.dispatcher.enter(Source(1, 2, seconds=0.005))
    (worker,) = game.workers
    game.dispatcher.on_reports(worker, [Opened(1)])
    first, last = (worker.receive().key for _ in range(2))
    worker.stop_reason = "it was killed"
    done = [Succeeded(key, 0.005, Outcome(), (0, 0)) for key in (first, last)]
    game.dispatcher.on_reports(worker, [Started(first), done[0], Started(last)])
    assert ShutDown() not in worker.sent
    game.dispatcher.on_reports(worker, [Storing(last, 20_000)] if is_stored else done[1:])
    assert worker.sent[-1] == ShutDown()


async def test_what_reports_of_short_tasks_cost_whose_values_are_uploaded(play):
    """They, too, are held, noted and passed on together, as tasks that ran.

    For each task it was 111 calls, then 50, 37, 33, 32, and now it is 20.
    """
    game = play(1)
    source = Source(1, 1000, seconds=0.0001)
    game.dispatcher.enter(source)
    (worker,) = game.workers
    game.begin(worker)
    game.dispatcher.on_reports(worker, [Opened(1)])
    game.end(worker)
    uploader = Uploader()
    held = HeldReports(game.dispatcher, uploader, holds_begun=True)
    total, end = 0, 0
    for _ in range(10):
        packed, told = b"", len(source.facts)
        for key in [worker.receive().key for _ in range(32)]:
            end += 20_000
            done = Succeeded(key, 0.0001, Outcome(), (0, 0))
            packed += pack_report(Started(key)) + pack_to_store(done, "flows/Flow/1/n.seg", end)
        reports = ReportStream().feed(packed)
        with counted_calls() as calls:
            held.on_reports(worker, reports)
        total += calls[0]
        assert not source.facts[told:]
        assert len(worker.orders) >= 32
        uploader.end_all()
        with counted_calls() as calls:
            held.call_again()
        total += calls[0]
        assert sum(len(ran.tasks) for ran in source.facts[told:]) == 32
    assert total / 320 < 22


async def test_the_last_short_tasks_are_spread_over_the_workers(play):
    """However few there are, no worker has many of them while another has none."""
    for count in (2, 5, 16, 100):
        game = play(4)
        game.dispatcher.enter(Source(1, count, seconds=0.0001))
        numbers = [len(worker.tasks) for worker in game.workers]
        assert max(numbers) <= -(-count // 4) + 32 / 4


@pytest.mark.parametrize("seconds", [None, 0.001, 5.0])
async def test_a_run_of_few_tasks_is_served_beside_one_of_many(play, seconds):
    """Whatever is known of its tasks, the late run waits no longer than for what is at hand."""
    game = play(2)
    game.dispatcher.enter(Source(1, 10_000, seconds=0.0005))
    for _ in range(100):
        for worker in game.workers:
            game.step(worker)
    game.dispatcher.enter(Source(2, 3, seconds=seconds))
    served = []
    for _ in range(150):
        served += [game.step(worker) for worker in game.workers if worker.orders]
    assert served.count(2) == 3


async def test_many_runs_have_equal_shares(play):
    """After any time no run has been served much more often than another."""
    game = play(3)
    for number in range(50):
        game.dispatcher.enter(Source(number, 1000, seconds=0.001))
    for _ in range(100):  # what the first one had while it was alone
        for worker in game.workers:
            game.step(worker)
    counts: Counter[int] = Counter()
    for _ in range(1000):
        counts.update(game.step(worker) for worker in game.workers if worker.orders)
    assert max(counts.values()) - min(counts.values()) <= 2


async def test_a_run_has_no_more_tasks_at_workers_than_it_may(play):
    """`max_running_tasks` holds over all workers, and others have the rest."""
    game = play(4)
    bounded = Source(1, 100, seconds=0.001)
    bounded.max_running_tasks = 3
    game.dispatcher.enter(bounded)
    game.dispatcher.enter(Source(2, 100, seconds=0.001))
    for turn in range(40):
        assert game.running()[1] <= 3
        game.step(game.workers[turn % len(game.workers)])
    assert game.running()[2] > 3
    assert bounded.taken > 3


async def test_a_run_of_a_higher_priority_is_served_before_others(play):
    """As long as it has ready tasks, whatever becomes free is its own."""
    game = play(2)
    game.dispatcher.enter(Source(1, 1000, seconds=1.0))
    game.dispatcher.enter(Source(2, 6, seconds=1.0, priority=1))
    served = [game.step(worker) for _ in range(5) for worker in game.workers]
    assert served == [1, 1, 2, 2, 2, 2, 2, 2, 1, 1]


async def test_async_tasks_of_one_run_leave_places_for_another(play):
    """A run whose async tasks fill the workers does not keep a small one out."""
    game = play(1)
    wide = Source(1, 50_000, is_async=True, options={"concurrency": 10_000})
    game.dispatcher.enter(wide)
    game.dispatcher.enter(Source(2, 3, is_async=True))
    assert game.running()[1] == 10_000
    assert game.running()[2] == 3


async def test_a_def_task_gets_a_worker_though_async_ones_keep_coming(play):
    """No further async task is given to the one worker, so it becomes free; then they go on."""
    game = play(1)
    game.dispatcher.enter(Source(1, 1000, is_async=True, options={"concurrency": 10}))
    (worker,) = game.workers
    for _ in range(10):
        game.begin(worker)
    game.dispatcher.enter(Source(2, 1))
    served = [game.end(worker) for _ in range(10)]
    assert served == [1] * 10
    assert game.running() == {2: 1}
    game.step(worker)
    assert game.running() == {1: 10}


async def test_an_async_task_gets_a_worker_though_def_ones_keep_coming(play):
    """The next worker that becomes free is its own, and stays so while it is needed."""
    game = play(2)
    game.dispatcher.enter(Source(1, 1000, seconds=0.001))
    game.dispatcher.enter(Source(2, 500, is_async=True))
    for _ in range(60):
        for worker in game.workers:
            if worker.tasks and worker.tasks[0][0] == 1:
                game.step(worker)
    assert game.running()[2] == 500
    assert game.running()[1] > 0


async def test_what_stands_behind_a_task_that_takes_long_is_run_elsewhere(play):
    """Also when no worker is idle: those who have room take it."""
    game = play(2)
    source = Source(1, 100, seconds=0.001)
    game.dispatcher.enter(source)
    stuck, other = game.workers
    game.begin(stuck)
    behind = len(stuck.orders)
    assert behind > 5
    while stuck.orders:
        if other.orders:
            game.step(other)
        await asyncio.sleep(0.01)
    await asyncio.sleep(0)  # what was taken back is told in the next turn
    while other.orders:
        game.step(other)
    assert not stuck.orders
    assert (
        len([fact for fact in game.dispatcher._runs[1].facts if isinstance(fact, Succeeded)]) == 99
    )


async def test_no_run_waits_for_all_tasks_of_another_that_take_longer_than_before(play):
    """None of them is long; but a worker has been given more than a hundred."""
    game = play(1)
    source = Source(1, 1000, seconds=0.0001)
    game.dispatcher.enter(source)
    (worker,) = game.workers
    assert len(worker.tasks) > 100
    game.dispatcher.enter(Source(2, 1, seconds=0.0001))
    source.expected["start"] = 0.09
    while game.running()[2] == 0:
        game.begin(worker)
        await asyncio.sleep(0.06)  # so that it is polled meanwhile, and none is stuck
        game.end(worker)
        assert source.facts[100:] == []
    assert len(worker.tasks) < 10


async def test_what_stands_behind_a_task_is_left_there_while_its_worker_is_heard_of_late(play):
    """A worker on another machine may have ended that task: it is told with what comes next."""
    game = play(2)
    source = Source(1, 100, seconds=0.001)
    game.dispatcher.enter(source)
    near, far = game.workers
    far.ahead = AHEAD._replace(patience=3600.0)
    for worker in near, far:
        game.begin(worker)
        assert len(worker.orders) > 5
    behind = far.tasks
    await until(lambda: not near.orders)
    assert far.tasks[: len(behind)] == behind


async def test_a_worker_that_dies_loses_what_it_had_begun_and_nothing_else(play):
    """The tasks behind it are given to others."""
    game = play(2)
    source = Source(1, 20, seconds=0.001)
    game.dispatcher.enter(source)
    dead, _ = game.workers
    game.begin(dead)
    (lost,) = dead.tasks[:1]
    game.dispatcher.on_exit(dead, "was killed by SIGKILL")
    while any(worker.orders for worker in game.workers[1:]):
        for worker in game.workers[1:]:
            if worker.orders:
                game.step(worker)
    ended = {fact.key.task for fact in source.facts if isinstance(fact, Succeeded)}
    assert [fact.key.task for fact in source.facts if isinstance(fact, Lost)] == [lost[1]]
    assert ended == set(range(1, 21)) - {lost[1]}


async def test_a_lost_task_has_taken_no_longer_than_since_its_flow_was_imported(play, monkeypatch):
    """A clock that goes on by a thousand seconds, while the flow is imported, is not told of."""
    loop, ahead = asyncio.get_running_loop(), [0.0]
    real = loop.time
    monkeypatch.setattr(loop, "time", lambda: real() + ahead[0])
    game = play(1)
    source = Source(1, 1)
    game.dispatcher.enter(source)
    (worker,) = game.workers
    game.begin(worker)
    ahead[0] += 1000.0
    game.dispatcher.on_reports(worker, [Opened(1)])
    game.dispatcher.on_exit(worker, "was killed by SIGKILL")
    (lost,) = [fact for fact in source.facts if isinstance(fact, Lost)]
    assert 0 <= lost.seconds < 500


async def test_a_run_that_leaves_is_served_no_more(play):
    """Its place in turn is gone with it, and statistics do not count it."""
    game = play(1)
    first, second = Source(1, 10, seconds=1.0), Source(2, 10, seconds=1.0)
    game.dispatcher.enter(first)
    game.dispatcher.enter(second)
    game.dispatcher.leave(second)
    served = [game.step(game.workers[0]) for _ in range(5)]
    assert served == [1] * 5
    assert game.dispatcher.statistics["tasks_waiting"] == first.ready


async def test_what_waits_costs_little_to_look_past(play):
    """With 300 runs waiting and no room, a report makes the dispatcher look at one of them."""
    game = play(1)
    looked: Counter[int] = Counter()

    class Watched(Source):
        def next_step(self):
            looked[self.number] += 1
            return super().next_step()

    for number in range(300):
        game.dispatcher.enter(Watched(number, 5, seconds=1.0))
    looked.clear()
    game.step(game.workers[0])
    assert looked.total() < 10


async def test_to_seat_many_tasks_leaves_the_event_loop_to_others(play, monkeypatch):
    """It goes on in the next turn of the loop when its time is over, until all are assigned."""
    for name in ("_WORK_SECONDS", "_ALONE_SECONDS"):
        monkeypatch.setattr(f"asyncflow.scheduling.loop_budget.{name}", 0.0)
    game = play(1)
    game.dispatcher.enter(Source(1, 500, is_async=True))
    turns = 0
    while game.running()[1] < 500:
        turns += 1
        await asyncio.sleep(0)
    assert turns > 5


# --- output -------------------------------------------------------------------------------------


async def test_a_worker_whose_output_outruns_the_journal_is_heard_again_when_that_has_caught_up(
    play,
):
    """Once each, however much it had said by then; who has printed little is heard throughout."""
    game = play(2)
    loud, quiet = Source(1, 1, is_async=True), Source(2, 1)
    game.dispatcher.enter(loud)
    game.dispatcher.enter(quiet)
    first, second = game.workers
    game.begin(first)
    game.begin(second)
    game.dispatcher.on_reports(second, [Logged(AttemptKey(2, 1, 0), 0, b"hello")])
    game.dispatcher.on_reports(first, [Logged(AttemptKey(1, 1, 0), 0, b"x" * BACKLOG_BYTES)])
    assert not game.executor.heard
    for _ in range(3):
        game.dispatcher.on_reports(first, [Logged(AttemptKey(1, 1, 0), 0, b"x")])
    assert game.executor.heard == [("pause", first.pid)]
    game.dispatcher.resume_paused_workers(quiet)  # its journal is not the one that lags
    assert game.executor.heard == [("pause", first.pid)]
    for _ in range(3):
        game.dispatcher.resume_paused_workers(loud)
    assert game.executor.heard == [("pause", first.pid), ("resume", first.pid)]
    game.dispatcher.on_reports(first, [Logged(AttemptKey(1, 1, 0), 0, b"x")])
    assert game.executor.heard[2:] == [("pause", first.pid)]


async def test_a_worker_that_was_paused_for_a_run_is_heard_again_when_the_run_is_over(play):
    """However it ended: nobody else would have it go on."""
    game = play(1)
    loud = Source(1, 1, is_async=True)
    game.dispatcher.enter(loud)
    (worker,) = game.workers
    game.begin(worker)
    for _ in range(2):
        report = Logged(AttemptKey(1, 1, 0), 0, b"x" * BACKLOG_BYTES)
        game.dispatcher.on_reports(worker, [report])
    game.dispatcher.leave(loud)
    assert game.executor.heard == [("pause", worker.pid), ("resume", worker.pid)]


# --- gangs ----------------------------------------------------------------------------------------


class GangSource(Source):
    """A run with so many ready gangs of three nodes."""

    def __init__(self, number, count, **options):
        super().__init__(number, count)
        marked = {"parallel": True, **options}
        self.graph = Graph(
            "Flow",
            [
                Node("start", next=("node",), num_parallel="3"),
                Node("node", next=("join",), options=marked),
                Node("join", next=("end",), is_join=True),
                Node("end"),
            ],
        )

    def next_step(self):
        return "node" if self.ready else None

    def next_gang(self):
        return 3 if self.ready else 0

    def take_gang(self):
        self.taken += 1
        return [self.again(3 * self.taken + index) for index in range(3)]

    def again(self, task_id):
        return StartTask(AttemptKey(self.number, task_id, 0), "node", (), [], b"", (), ())


async def test_a_gang_has_workers_of_its_own_one_gang_after_the_other(play):
    """More than there may be, if need be; but a second gang waits for the first one."""
    game = play(2)
    game.dispatcher.enter(GangSource(1, 1))
    game.dispatcher.enter(GangSource(2, 1))
    assert [worker.tasks for worker in game.workers] == [[(1, 3)], [(1, 4)], [(1, 5)]]
    for worker in game.workers[:2]:
        game.step(worker)
    await asyncio.sleep(0)
    assert game.running() == {1: 1}
    game.step(game.workers[2])
    await asyncio.sleep(0)
    assert game.running() == {2: 3}
    assert len(game.workers) == 3


async def test_gangs_that_fit_run_side_by_side(play):
    """They need no more workers than there may be."""
    game = play(6)
    game.dispatcher.enter(GangSource(1, 1))
    game.dispatcher.enter(GangSource(2, 1))
    assert game.running() == {1: 3, 2: 3}


async def test_other_tasks_do_not_run_on_workers_that_are_there_for_a_gang(play):
    """There are no more of them at a time than the settings say."""
    game = play(2)
    game.dispatcher.enter(GangSource(1, 1))
    for worker in game.workers:
        game.step(worker)
    game.dispatcher.enter(Source(2, 9, seconds=1.0))
    assert game.running() == {2: 2}


async def test_a_node_that_its_worker_has_not_begun_goes_to_another_one_at_once(play):
    """The others may wait for it: neither the pool's size nor the run's limits hold it up."""
    game = play(3)
    source = GangSource(1, 1, concurrency=1)
    source.max_running_tasks = 1
    game.dispatcher.enter(source)
    game.dispatcher.enter(Source(2, 9, seconds=1.0))
    first, *others = game.workers
    for worker in others:
        game.begin(worker)
    game.dispatcher.on_exit(first, "died")
    assert [worker.tasks for worker in game.workers[3:]] == [[(1, 3)]]
    assert not any(isinstance(fact, Lost) for fact in source.facts)
    assert not source.given_back


async def test_a_gang_whose_workers_cannot_be_started_fails_its_run(play, monkeypatch):
    """After some tries, and the workers that could be started leave again."""
    monkeypatch.setattr("asyncflow.scheduling.task_assigner._REST_SECONDS", 0.0)
    game = play(1)
    source = GangSource(1, 1)
    failed: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()

    def abandon(error):
        source.count = 0
        failed.set_result(error)

    monkeypatch.setattr(source, "abandon", abandon)
    start = game.executor.start_worker

    def start_two_at_most(kind):
        if sum(not worker.stop_reason for worker in game.workers) < 2:
            return start()
        short = OSError(errno.EMFILE, "too many open files")
        raise PoolError("cannot start a worker process") from short

    monkeypatch.setattr(game.executor, "start_worker", start_two_at_most)
    game.dispatcher.enter(source)
    assert "a gang of 3 tasks cannot have its workers: cannot start" in str(await failed)
    assert all(worker.stop_reason for worker in game.workers)


async def test_a_gang_holds_its_place_in_line_for_the_machine_until_its_last_node_has_ended(play):
    """It needs three processors, so the next one begins when all three are free."""
    game = play(9, machine=(4.0, 0.0, 0.0))
    game.dispatcher.enter(GangSource(1, 1, resources={"cpu": 1}))
    game.dispatcher.enter(GangSource(2, 1, resources={"cpu": 1}))
    for worker in game.workers[:2]:
        game.step(worker)
    await asyncio.sleep(0)
    assert game.running() == {1: 1}
    game.step(game.workers[2])
    await asyncio.sleep(0)
    assert game.running() == {2: 3}


# --- values that are uploaded ---


async def test_a_worker_goes_on_while_what_it_has_stored_is_uploaded(play):
    """It has as much work at hand as if its tasks had ended, and none of them is late or stuck."""
    game = play(1)
    source = Source(1, 1000, seconds=0.005, options={"timeout": {"seconds": 0.02}})
    game.dispatcher.enter(source)
    (worker,) = game.workers
    for _ in range(10):
        game.begin(worker)
        game.dispatcher.on_reports(worker, [Storing(worker.received[-1].key, 20_000)])
        assert 3 <= len(worker.orders) <= 6
    await asyncio.sleep(0.3)
    assert worker.verbs == []
    assert 3 <= len(worker.orders) <= 6
    ended = [game.end(worker) for _ in range(10)]
    assert ended == [1] * 10
    assert [type(fact) for fact in source.facts[-10:]] == [Succeeded] * 10


@pytest.mark.parametrize("options", [{}, {"timeout": {"seconds": 0.02}}, {"isolate": True}])
async def test_that_a_task_has_begun_may_be_told_when_its_values_are_stored(play, options):
    """The run hears of both, and no time limit begins for a task that has ended."""
    game = play(1)
    source = Source(1, 1000, seconds=0.005, options=options)
    game.dispatcher.enter(source)
    (worker,) = game.workers
    key = worker.receive().key
    done = Succeeded(key, 0.001, Outcome(), (0, 0))
    game.dispatcher.on_reports(worker, [Opened(1), Storing(key, 20_000)])
    assert source.facts == []
    game.dispatcher.on_reports(worker, [Started(key)])
    assert source.facts == [Started(key)]
    await asyncio.sleep(0.1)
    assert worker.verbs == []
    game.dispatcher.on_reports(worker, [done])
    assert source.facts == [Started(key), done]


@pytest.mark.parametrize("is_known", [False, True])
@pytest.mark.parametrize(("number", "size"), [(512, 20_000), (1, 1 << 30)])
async def test_a_worker_waits_if_too_much_is_to_be_uploaded(play, number, size, is_known):
    """After so many tasks, or bytes, it gets no more until some of it is stored.

    Reports of a run that the worker is known to have imported are noted together.
    """
    game = play(1)
    game.dispatcher.enter(Source(1, 1000, seconds=1.0))
    (worker,) = game.workers
    if is_known:
        game.dispatcher.on_reports(worker, [Opened(1)])
    for _ in range(number):
        assert worker.orders
        game.begin(worker)
        game.dispatcher.on_reports(worker, [Storing(worker.received[-1].key, size)])
    assert not worker.orders
    game.end(worker)
    assert worker.orders


@pytest.mark.parametrize("is_known", [False, True])
async def test_a_worker_goes_on_waiting_while_too_many_bytes_are_to_be_uploaded(play, is_known):
    """That one of its tasks is stored does not say that little is left."""
    game = play(1)
    game.dispatcher.enter(Source(1, 1000, seconds=0.001))
    (worker,) = game.workers
    if is_known:
        game.dispatcher.on_reports(worker, [Opened(1)])
    while worker.orders:
        game.begin(worker)
        game.dispatcher.on_reports(worker, [Storing(worker.received[-1].key, 1 << 30)])
    count = len(worker.received)
    assert count > 1
    for _ in range(count - 1):
        game.end(worker)
        assert not worker.orders
    game.end(worker)
    assert worker.orders


async def test_items_are_told_even_if_their_generator_has_ended(play):
    """They were being uploaded when its step ended."""
    game = play(1)
    source = Source(1, 1)
    game.dispatcher.enter(source)
    (worker,) = game.workers
    game.begin(worker)
    key = worker.received[-1].key
    yielded = Yielded(key, 0, 1, b"", b"", b"")
    game.dispatcher.on_reports(worker, [Storing(key, 20_000), yielded])
    assert source.facts[-1] == yielded


async def test_a_task_whose_values_cannot_be_uploaded_has_failed(play):
    """With the reason, and its next attempt may begin."""
    game = play(1)
    source = Source(1, 1)
    game.dispatcher.enter(source)
    (worker,) = game.workers
    game.begin(worker)
    key = worker.received[-1].key
    reports = [Storing(key, 20_000), NotStored(key, "the bucket is gone")]
    game.dispatcher.on_reports(worker, reports)
    assert isinstance(source.facts[-1], Lost)
    assert source.facts[-1].exception_type == "asyncflow.errors.StoreError"
    assert source.facts[-1].how == "the bucket is gone"


async def test_values_that_were_not_uploaded_are_lost_with_their_worker(play):
    """If a worker's exit comes before the end of an attempt, that attempt is lost."""
    game = play(1)
    source = Source(1, 1)
    game.dispatcher.enter(source)
    (worker,) = game.workers
    game.begin(worker)
    game.dispatcher.on_reports(worker, [Storing(worker.received[-1].key, 20_000)])
    game.dispatcher.on_exit(worker, "was lost with its node")
    assert [type(fact) for fact in source.facts] == [Started, Lost]
