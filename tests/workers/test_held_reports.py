"""Reports are held until the values that they name are stored, with uploads that a test ends."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncflow.errors import PoolError
from asyncflow.values import Outcome
from asyncflow.workers.held_reports import HeldReports
from asyncflow.workers.messages import (
    AttemptKey,
    CardsChanged,
    Failed,
    Logged,
    NotStored,
    Pong,
    ReportMessage,
    Started,
    Storing,
    Succeeded,
    Wrote,
    Yielded,
    pack_report,
    pack_to_store,
)
from asyncflow.workers.report_stream import Reports, ReportStream, WholeAttempts
from tests.support.waiting import until


@dataclass
class Upload:
    """An upload that a test ends."""

    wrote: Wrote
    is_done: bool = False
    error: str = ""


class Uploader:
    """Uploads nothing."""

    waiting_bytes = 4711

    def __init__(self):
        self.uploads = []
        self.hurried = 0

    def add(self, *wrote):
        self.uploads.append(Upload(Wrote(*wrote)))
        return self.uploads[-1]

    def hurry(self):
        self.hurried += 1

    def listen(self, listener):
        self.tell = listener

    def close(self):
        """Nothing is open."""

    def end(self, number, error=""):
        self.uploads[number].is_done, self.uploads[number].error = True, error


@dataclass(eq=False)
class Worker:
    """A worker that a test gives attempts to."""

    is_idle: bool


class Listener:
    """Notes what it hears."""

    def __init__(self):
        self.heard = []
        self.parts = []  # of what is told as parts

    def on_reports(self, worker, reports):
        assert reports
        if isinstance(reports, Reports):
            self.parts.append(reports.parts)
        self.heard += [(worker, report) for report in reports]

    def on_exit(self, worker, how):
        self.heard.append((worker, how))

    def on_stopped(self, worker, how):
        self.heard.append((worker, ("stopped", how)))

    def on_continued(self, worker):
        self.heard.append((worker, "continued"))

    def on_refused(self, kind, error):
        self.heard.append((kind, error))

    def on_room(self):
        self.heard.append((None, "room"))

    def on_broken(self, error):
        self.heard.append((None, error))

    def of(self, worker):
        return [report for whose, report in self.heard if whose == worker]


def key(number):
    """The first attempt of a task."""
    return AttemptKey(1, number, 0)


def succeeded(number, seconds=0.1):
    """What its worker reports in the end."""
    return Succeeded(key(number), seconds, Outcome(), (0, 0))


def failed(number, outcome=None):
    """The same of a failure; with an outcome, one that is caught."""
    return Failed(key(number), 0.1, "ValueError", "no", "", True, (0, 0), outcome)


def received(*packed):
    """Reports as they come from a worker's stream."""
    return ReportStream().feed(b"".join(packed))


def to_store(number, wrote, seconds=0.1):
    """What its worker reports in the end if it has written a value."""
    return received(pack_to_store(succeeded(number, seconds), wrote.segment, wrote.end))[0]


def ran(number, wrote=None):
    """What it reports of a short task that has written a value."""
    return Started(key(number), f"item {number}"), to_store(number, wrote or A, 0.001)


def told(number):
    """What of that is told in the end."""
    (ended,) = received(pack_report(succeeded(number, 0.001)))
    return [Started(key(number), f"item {number}"), ended]


def storing(*numbers):
    """What is told at once."""
    return [Storing(key(number), 4711) for number in numbers]


A = Wrote("flows/F/1/n.seg", 10, ())
B = Wrote("flows/F/2/n.seg", 20, (b"x" * 32,))
MORE = Wrote("flows/F/1/n.seg", 30, ())


class Play:
    def __init__(self, *, holds_begun=False):
        self.listener, self.uploader = Listener(), Uploader()
        self.held = HeldReports(self.listener, self.uploader, holds_begun=holds_begun)

    def report(self, *reports, worker="w"):
        self.held.on_reports(worker, reports)

    def end(self, number, error=""):
        self.uploader.end(number, error)
        self.held.call_again()

    def heard(self, worker="w"):
        return self.listener.of(worker)


@pytest.fixture
async def play():
    """A scheduler's ear, and uploads."""
    return Play()


@pytest.fixture
async def holding():
    """The same, and it may be held that a task has begun."""
    return Play(holds_begun=True)


async def test_that_a_short_task_has_begun_is_told_with_its_end(holding):
    """That costs the scheduler half, and the task is over in any case."""
    holding.report(*ran(1), *ran(2, MORE))
    assert holding.heard() == storing(1, 2)
    holding.report(*ran(3))
    holding.end(0)
    assert holding.heard()[2:] == [*storing(3), *told(1), *told(2)]
    holding.end(1)
    assert holding.heard()[-2:] == told(3)


async def test_short_tasks_are_told_together_though_the_first_of_a_read_had_begun_before(holding):
    """That it had was told with the read before. So it is with every read of a busy worker."""
    for first in (1, 4):
        begun, ended = ran(first, MORE)
        holding.report(begun)
        holding.report(ended, *ran(first + 1), *ran(first + 2, MORE))
    heard = len(holding.heard())
    holding.end(0)
    holding.end(1)
    assert holding.heard()[heard:] == [
        *(told(1)[1], *told(2), *told(3)),
        *(told(4)[1], *told(5), *told(6)),
    ]
    kinds = [[type(part) for part in parts] for parts in holding.listener.parts]
    assert kinds == [[Succeeded, WholeAttempts], [Succeeded, WholeAttempts]]


async def test_that_a_task_has_begun_is_told_at_once_unless_its_end_came_with_it(holding):
    """Of long tasks always, and of those that run side by side."""
    begun = Started(key(1)), Started(key(2)), Started(key(4))
    long, short = to_store(1, A), to_store(2, A, 0.001)
    holding.report(begun[0], long, begun[1], Started(key(3)), short, begun[2])
    assert holding.heard() == [
        *(begun[0], *storing(1)),
        *(begun[1], Started(key(3)), *storing(2)),
        begun[2],
    ]
    holding.end(0)
    assert [type(report) for report in holding.heard()[-2:]] == [Succeeded] * 2


async def test_that_a_task_has_begun_is_told_before_whatever_else_its_worker_says(holding):
    """It could be about that task."""
    holding.report(*ran(1), *ran(2))
    holding.report(Logged(key(1), 1, b"late"))
    begun = [told(1)[0], told(2)[0]]
    assert holding.heard()[2:] == [*begun, Logged(key(1), 1, b"late")]
    holding.report(*ran(3))
    holding.end(0)
    holding.end(1)
    assert holding.heard()[5:] == [*storing(3), told(1)[1], told(2)[1], *told(3)]


async def test_that_a_task_has_begun_is_told_though_its_values_are_not_stored_for_long(
    holding, monkeypatch
):
    """And then its end is told alone."""
    monkeypatch.setattr("asyncflow.workers.held_reports.HOLD_SECONDS", 0.01)
    holding.report(*ran(1))
    holding.report(*ran(2), worker="v")
    await until(lambda: len(holding.listener.heard) == 4)
    assert holding.heard() == [*storing(1), told(1)[0]]
    assert holding.heard("v") == [*storing(2), told(2)[0]]
    holding.report(*ran(3))
    await until(lambda: len(holding.listener.heard) == 6)
    holding.end(0)
    holding.end(2)
    assert holding.heard() == [
        *storing(1),
        told(1)[0],
        *storing(3),
        told(3)[0],
        told(1)[1],
        told(3)[1],
    ]


async def test_that_a_task_has_begun_is_held_on_while_that_of_an_earlier_one_is_told(
    holding, monkeypatch
):
    """Its own time has not come."""
    monkeypatch.setattr("asyncflow.workers.held_reports.HOLD_SECONDS", 1000)
    holding.report(*ran(1))
    holding.held._queues["w"].held[0].begun_since -= 1000
    holding.report(*ran(2, MORE))
    holding.report(*ran(3), worker="v")
    holding.held._tell_late()
    assert holding.heard() == [*storing(1), *storing(2), told(1)[0]]
    assert holding.heard("v") == storing(3)
    holding.end(0)
    holding.end(1)
    assert holding.heard()[3:] == [told(1)[1], *told(2)]


async def test_that_a_task_has_begun_is_told_though_the_call_for_it_was_lost(holding, monkeypatch):
    """Whoever has everybody look again has it told."""
    monkeypatch.setattr("asyncflow.workers.held_reports.HOLD_SECONDS", 0.0)
    holding.report(*ran(1))
    holding.held._late.cancel()
    await asyncio.sleep(0.01)
    assert holding.heard() == storing(1)
    holding.held.call_again()
    assert holding.heard() == [*storing(1), told(1)[0]]


async def test_a_short_task_whose_value_cannot_be_stored_has_begun_and_failed(holding):
    """As any other."""
    holding.report(*ran(1))
    holding.end(0, "no answer")
    assert holding.heard()[1:] == [told(1)[0], NotStored(key(1), "no answer")]


async def test_an_exit_comes_after_the_tasks_of_which_nothing_was_told(holding):
    """They have begun and ended."""
    holding.report(*ran(1))
    holding.held.on_exit("w", "exited")
    holding.end(0)
    assert holding.heard()[1:] == [*told(1), "exited"]


async def test_values_are_uploaded_without_a_wait_once_no_worker_has_an_attempt(play):
    """Nothing comes that could share the request. As long as one works, it is left to the clock."""
    first, second = Worker(is_idle=True), Worker(is_idle=False)
    play.held.watch(SimpleNamespace(workers=[first, second]))
    play.report(A, succeeded(1), worker=first)
    await asyncio.sleep(0.02)
    assert play.uploader.hurried == 0
    second.is_idle = True
    play.report(B, succeeded(2), worker=second)
    await until(lambda: play.uploader.hurried)
    play.end(0)  # some of it is stored, and the rest still waits
    await until(lambda: play.uploader.hurried == 2)
    play.end(1)
    await asyncio.sleep(0.02)
    assert play.uploader.hurried == 2


async def test_values_wait_for_company_if_a_worker_has_a_task_a_moment_later(play):
    """It is seen to have none while its next one is on the way."""
    worker = Worker(is_idle=True)
    play.held.watch(SimpleNamespace(workers=[worker]))
    play.report(A, succeeded(1), worker=worker)
    worker.is_idle = False
    await asyncio.sleep(0.02)
    assert play.uploader.hurried == 0


async def test_reports_that_name_nothing_new_pass_at_once(play):
    """As if nothing stood in between."""
    reports = [Started(key(1)), Logged(key(1), 1, b"x"), succeeded(1)]
    play.report(*reports)
    assert play.heard() == reports


async def test_a_success_waits_for_its_values_and_nothing_else_does(play):
    """The scheduler hears that it is being stored, and of what comes after."""
    play.report(Started(key(1)), A, succeeded(1), Started(key(2)), Pong())
    assert play.heard() == [Started(key(1)), Storing(key(1), 4711), Started(key(2)), Pong()]
    play.end(0)
    assert play.heard()[4:] == [succeeded(1)]
    play.report(succeeded(2))
    assert play.heard()[5:] == [succeeded(2)]


async def test_the_end_of_an_upload_is_heard_from_another_thread(play):
    """On the event loop, soon."""
    play.report(A, succeeded(1))
    play.uploader.end(0)
    await asyncio.to_thread(play.uploader.tell)
    await asyncio.sleep(0.01)
    assert play.heard() == [Storing(key(1), 4711), succeeded(1)]


async def test_reports_of_a_worker_stay_in_order(play):
    """A later upload may end first, and helps nobody before the earlier one."""
    play.report(A, succeeded(1), B, succeeded(2))
    play.end(1)
    assert play.heard() == [Storing(key(1), 4711), Storing(key(2), 4711)]
    play.end(0)
    assert play.heard()[2:] == [succeeded(1), succeeded(2)]


async def test_workers_do_not_wait_for_each_other(play):
    """Each has a queue of its own."""
    play.report(A, succeeded(1), worker="v")
    play.report(A, succeeded(2), worker="w")
    play.end(1)
    assert play.heard("v") == [Storing(key(1), 4711)]
    assert play.heard("w") == [Storing(key(2), 4711), succeeded(2)]


async def test_a_report_waits_for_all_that_its_worker_wrote_before(play):
    """Tasks on one event loop write side by side: nobody knows whose value was told first."""
    play.report(A, B)
    play.report(succeeded(2))
    play.end(1)
    assert succeeded(2) not in play.heard()
    play.end(0)
    assert play.heard() == [Storing(key(2), 4711), succeeded(2)]


async def test_a_segment_that_is_stored_further_is_enough(play):
    """The later end of a segment takes the place of the earlier one."""
    play.report(A)
    play.report(MORE, succeeded(1))
    play.end(1)
    assert play.heard() == [Storing(key(1), 4711), succeeded(1)]


async def test_what_comes_together_is_uploaded_together(play):
    """One end of a segment, the farthest, for all reports of a batch."""
    play.report(A, succeeded(1), MORE, succeeded(2))
    assert [upload.wrote for upload in play.uploader.uploads] == [MORE]
    play.end(0)
    assert play.heard()[-2:] == [succeeded(1), succeeded(2)]


async def test_successes_that_say_what_they_wrote_are_held_together(play):
    """The farthest end is uploaded, and each is told as its worker has reported it."""
    (one, two) = received(pack_report(succeeded(1)), pack_report(succeeded(2)))
    play.report(Started(key(1)), to_store(1, A), Started(key(2)), to_store(2, MORE))
    assert [upload.wrote for upload in play.uploader.uploads] == [MORE]
    begun = [Started(key(1)), Storing(key(1), 4711), Started(key(2)), Storing(key(2), 4711)]
    assert play.heard() == begun
    play.end(0)
    assert play.heard()[4:] == [one, two]


async def test_successes_with_values_of_two_runs_wait_for_both(play):
    """Whatever else comes between them keeps its place."""
    other = Wrote("flows/F/2/n.seg", 20, ())
    play.report(to_store(1, A), Pong(), to_store(2, other), failed(3))
    assert [upload.wrote for upload in play.uploader.uploads] == [A, other]
    play.end(1)
    assert play.heard() == [Storing(key(1), 4711), Pong(), *(Storing(key(n), 4711) for n in (2, 3))]
    play.end(0)
    assert [report.key for report in play.heard()[4:]] == [key(1), key(2), key(3)]


async def test_successes_with_values_of_two_runs_wait_for_both_if_all_say_what_they_wrote(play):
    """A segment is one run's: the end of one says nothing of the other."""
    other = Wrote("flows/F/2/n.seg", 20, ())
    play.report(to_store(1, A), to_store(2, other), Started(key(3)))
    assert [upload.wrote for upload in play.uploader.uploads] == [A, other]
    play.end(1)
    assert [type(report) for report in play.heard()] == [Storing, Storing, Started]
    play.end(0)
    assert [report.key for report in play.heard()[3:]] == [key(1), key(2)]


async def test_a_start_passes_while_values_of_its_worker_are_uploaded(play):
    """Alone, too: it names nothing."""
    play.report(to_store(1, A))
    play.report(Started(key(2)))
    assert play.heard() == [Storing(key(1), 4711), Started(key(2))]


async def test_what_happens_to_workers_passes_at_once(play):
    """Also while their values are uploaded: no report names it."""
    play.report(A, succeeded(1))
    refused, broken = PoolError("no memory"), PoolError("no more")
    play.held.on_stopped("w", "SIGSTOP")
    play.held.on_continued("w")
    play.held.on_refused("kind", refused)
    play.held.on_room()
    play.held.on_broken(broken)
    workers = [("w", ("stopped", "SIGSTOP")), ("w", "continued")]
    pool = [("kind", refused), (None, "room"), (None, broken)]
    assert play.listener.heard[1:] == workers + pool


async def test_a_success_whose_value_cannot_be_stored_has_failed(play):
    """It says what it wrote itself; the next one has that uploaded again."""
    play.report(to_store(1, A))
    play.end(0, "no answer")
    assert play.heard()[-1] == NotStored(key(1), "no answer")
    play.report(to_store(2, MORE))
    assert [upload.wrote for upload in play.uploader.uploads[1:]] == [MORE, A]
    play.end(1)
    assert play.heard()[-1] == Storing(key(2), 4711)
    play.end(2)
    assert play.heard()[-1].key == key(2)


async def test_what_cannot_be_stored_has_failed(play):
    """Also a failure whose values its `@catch` passes on; a plain failure stays one."""
    play.report(A, succeeded(1), failed(2, Outcome()), failed(3))
    play.end(0, "the bucket is gone")
    assert play.heard()[3:] == [
        NotStored(key(1), "the bucket is gone"),
        NotStored(key(2), "the bucket is gone"),
        failed(3),
    ]


async def test_nothing_passes_that_may_name_what_was_not_stored(play):
    """The next report has it uploaded again, and waits for that."""
    play.report(A, B, succeeded(1))
    play.end(0, "no answer")
    play.end(1)
    assert play.heard()[-1] == NotStored(key(1), "no answer")
    play.report(succeeded(2))
    assert play.uploader.uploads[2].wrote == A
    assert play.heard()[-1] == Storing(key(2), 4711)
    play.end(2)
    assert play.heard()[-1] == succeeded(2)
    play.report(succeeded(3))
    assert play.heard()[-1] == succeeded(3)


async def test_an_attempt_whose_items_are_not_stored_fails_in_the_end(play):
    """What it has yielded is not told, and its success neither."""
    yielded = Yielded(key(1), 0, 1, b"", b"", b"")
    play.report(A, yielded)
    play.end(0, "no answer")
    assert play.heard() == []
    play.report(B, yielded)
    play.end(1)
    play.end(2)
    play.report(succeeded(1), succeeded(2))
    assert play.heard()[-2:] == [NotStored(key(1), "no answer"), succeeded(2)]


async def test_a_card_is_told_once_it_is_stored(play):
    """If it cannot be stored, nobody misses it: the next report has it as well."""
    changed, then = CardsChanged(key(1), b"1"), CardsChanged(key(1), b"2")
    play.report(A, changed)
    assert play.heard() == []
    play.end(0)
    assert play.heard() == [changed]
    play.report(B, then)
    play.end(1, "no answer")
    assert play.heard() == [changed]
    play.report(succeeded(1))
    assert play.uploader.uploads[2].wrote == B
    play.end(2)
    assert play.heard()[-1] == succeeded(1)


async def test_a_failure_is_told_without_cards_that_cannot_be_stored(play):
    """It names nothing that is not there."""
    failed = Failed(key(1), 1.0, "E", "why", "trace", True, (0, 0), cards=b"1")
    play.report(A, failed)
    play.end(0, "no answer")
    assert play.heard()[-1] == failed._replace(cards=b"")


async def test_an_exit_comes_after_all_reports(play):
    """A worker that is gone has still done what it has handed over."""
    play.report(A, succeeded(1))
    play.held.on_exit("w", "exited")
    assert play.heard() == [Storing(key(1), 4711)]
    play.end(0)
    assert play.heard()[1:] == [succeeded(1), "exited"]
    play.held.on_exit("v", "exited")
    assert play.heard("v") == ["exited"]


@given(st.data())
def test_nothing_is_told_before_it_is_stored_and_all_is_told_in_the_end(data):
    """Whatever is reported and stored in whatever order, and whatever fails."""
    asyncio.run(_any_order(data))


def segment(number):
    """Which of two segments, one for each of two runs, has the value of that number."""
    return f"s{number % 3 % 2}"


class Trial:
    """Tasks that report, and uploads that end, as drawn."""

    def __init__(self, data):
        self.data, self.play = data, Play(holds_begun=data.draw(st.booleans()))
        self.wrote = 0
        self.begun: list[int] = []
        self.reported: list[int] = []  # by task: how much had been written
        self.stored: Counter[str] = Counter()  # by segment, up to where

    def ends(self):
        """The ends of tasks that were told."""
        return [each for each in self.play.heard() if isinstance(each, Succeeded | NotStored)]

    def check(self, before):
        """What was told since then was stored."""
        for report in self.ends()[before:]:
            if isinstance(report, Succeeded):
                for number in range(1, self.reported[report.key.task] + 1):
                    assert self.stored[segment(number)] >= number

    def report(self, number):
        """Some tasks write something, and are reported together."""
        draw = self.data.draw
        reports: list[ReportMessage] = []
        for _ in range(number):
            task = len(self.reported)
            if draw(st.booleans()):
                reports.append(Started(key(task)))
                self.begun.append(task)
            wrote = []
            for _ in range(draw(st.integers(0, 2))):
                self.wrote += 1
                wrote.append(Wrote(segment(self.wrote), self.wrote, ()))
            last = succeeded(task)
            if wrote and draw(st.booleans()):
                last = to_store(task, wrote.pop(), draw(st.sampled_from([0.001, 0.1])))
            reports += wrote
            reports.append(last)
            self.reported.append(self.wrote)
        before = len(self.ends())
        self.play.report(*reports)
        self.check(before)

    def store(self, most):
        """Some uploads end, in any order."""
        uploads = self.play.uploader.uploads
        rest = [number for number, each in enumerate(uploads) if not each.is_done]
        for number in self.data.draw(st.permutations(rest))[:most]:
            error = self.data.draw(st.sampled_from(["", "", "no"]))
            if not error:
                wrote = uploads[number].wrote
                self.stored[wrote.segment] = max(wrote.end, self.stored[wrote.segment])
            before = len(self.ends())
            self.play.end(number, error)
            self.check(before)


async def _any_order(data):
    trial = Trial(data)
    for number in data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=6)):
        trial.report(number)
        trial.store(data.draw(st.integers(0, 3)))
    while not all(each.is_done for each in trial.play.uploader.uploads):
        trial.store(100)
    assert [end.key.task for end in trial.ends()] == list(range(len(trial.reported)))
    heard = [(type(each), each.key.task) for each in trial.play.heard()]
    assert [task for kind, task in heard if kind is Started] == trial.begun
    for task in trial.begun:
        ends = [
            heard.index((kind, task)) for kind in (Succeeded, NotStored) if (kind, task) in heard
        ]
        assert heard.index((Started, task)) < min(ends)
