"""How long an agent keeps the reports of a worker for itself, and what rings when."""

from __future__ import annotations

import asyncio

import pytest

from asyncflow.values import Outcome
from asyncflow.workers.cluster.alarm import Alarm
from asyncflow.workers.cluster.report_pace import PACE_SECONDS, ReportPace
from asyncflow.workers.messages import AttemptKey, GaveBack, Started, Succeeded

NOTHING = Outcome()


def ended(count, first=1):
    """So many tasks that have begun and ended."""
    keys = [AttemptKey(1, task, 0) for task in range(first, first + count)]
    return [
        report for key in keys for report in (Started(key), Succeeded(key, 0.0, NOTHING, (0, 0)))
    ]


@pytest.mark.parametrize(
    ("sent", "count", "seconds", "patience"),
    [
        (1, 1, 0.001, 0.0),  # nothing is left: it waits for orders
        (13, 10, 0.001, 0.0),  # little is left
        (20, 10, 0.01, 0.005),  # half of what the others should take
        (500, 10, 0.01, PACE_SECONDS),  # not for long, however much is left
        (500, 0, 0.01, 0.0),  # nobody knows how long they take
    ],
)
def test_reports_wait_for_half_of_the_time_for_which_their_worker_has_work(
    sent, count, seconds, patience
):
    """So it never waits for orders because its reports did."""
    pace = ReportPace()
    pace.sent(7, sent, 100.0)
    pace.reported(7, ended(count), 100.0 + seconds)
    assert pace.due == pytest.approx(100.0 + seconds + patience)


def test_further_reports_are_told_with_the_first():
    """None of them waits for longer than the first one may."""
    pace = ReportPace()
    pace.sent(7, 40, 100.0)
    pace.reported(7, ended(10), 100.01)
    due = pace.due
    pace.reported(7, ended(10, 11), 100.02)
    assert pace.due == due
    pace.reported(7, ended(18, 21), 100.024)  # little is left now
    assert pace.due == 100.024


def test_reports_wait_for_longer_when_orders_have_come():
    """The worker has more to do; but no report waits for longer than one may."""
    pace = ReportPace()
    pace.sent(7, 20, 100.0)
    pace.reported(7, ended(10), 100.01)
    pace.sent(7, 20, 100.012)
    assert pace.due == pytest.approx(100.012 + 0.015)
    pace.sent(7, 1000, 100.013)
    assert pace.due == pytest.approx(100.01 + PACE_SECONDS)


def test_the_report_that_waits_the_shortest_decides_for_all_workers():
    """And nothing waits once all were told."""
    pace = ReportPace()
    assert pace.due is None
    for token, tasks in ((7, 400), (8, 20), (9, 400)):
        pace.sent(token, tasks, 100.0)
        pace.reported(token, ended(10), 100.01)
    assert pace.due == pytest.approx(100.01 + 0.005)
    pace.told()
    assert pace.due is None


def test_tasks_that_were_given_back_are_no_work():
    """The worker has nothing left then."""
    pace = ReportPace()
    pace.sent(7, 40, 100.0)
    pace.reported(7, ended(10), 100.01)
    assert (pace.due or 0) > 100.02
    back = [GaveBack(AttemptKey(1, task, 0)) for task in range(11, 41)]
    pace.reported(7, back, 100.02)
    assert pace.due == 100.02


def test_the_time_in_which_a_worker_had_nothing_does_not_count():
    """Else its next tasks would seem to be long."""
    pace = ReportPace()
    pace.sent(7, 20, 100.0)
    pace.reported(7, ended(20), 100.02)
    pace.told()
    pace.sent(7, 20, 200.0)
    pace.reported(7, ended(10), 200.01)
    assert pace.due == pytest.approx(200.01 + 0.005)


def test_nothing_waits_for_a_worker_that_is_gone():
    """Its last words are told at once."""
    pace = ReportPace()
    pace.sent(7, 40, 100.0)
    pace.forget(7)
    pace.reported(7, ended(10), 100.01)
    assert pace.due == 100.01


async def test_an_alarm_rings_at_the_earliest_of_its_times():
    """A later one that was asked for before does not matter."""
    alarm = Alarm()
    alarm.ring_within(1000)
    alarm.ring_within(0.001)
    alarm.ring_within(2000)
    await alarm.wait()
    assert repr(alarm) == "<Alarm ringing>"


async def test_an_alarm_rings_at_once_if_somebody_cannot_wait():
    """Without a turn of the loop."""
    alarm = Alarm()
    alarm.ring_within(1000)
    alarm.ring_within(0)
    assert repr(alarm) == "<Alarm ringing>"
    alarm.ring_within(1000)  # it does already
    assert repr(alarm) == "<Alarm ringing>"


async def test_an_alarm_rings_at_the_time_that_was_asked_for_last():
    """Later or earlier than before."""
    alarm, now = Alarm(), asyncio.get_running_loop().time()
    alarm.ring_at(now + 0.001)
    alarm.ring_at(now + 1000)
    await asyncio.sleep(0.01)
    assert repr(alarm) == "<Alarm set>"
    alarm.ring_at(now)
    assert repr(alarm) == "<Alarm ringing>"


async def test_an_alarm_that_was_silenced_does_not_ring():
    """Neither now nor when its time has come."""
    alarm = Alarm()
    alarm.ring_within(0.001)
    alarm.silence()
    await asyncio.sleep(0.01)
    assert repr(alarm) == "<Alarm silent>"
    await alarm.wait(0.001)
    assert repr(alarm) == "<Alarm silent>"
