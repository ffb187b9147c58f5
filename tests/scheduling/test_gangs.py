"""What is recorded of a gang once all its nodes have ended, and what is kept until then."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncflow.events.types import STOPPED
from asyncflow.scheduling.commands import BeginTask, Verdict
from asyncflow.scheduling.facts import Lost
from asyncflow.scheduling.gangs import Gangs, has_result
from asyncflow.values import Outcome
from asyncflow.workers.messages import AttemptKey, Failed, StartTask, Succeeded

FIRST = 7  # the id of node 0


def key(node, attempt=0):
    """The key of a node's attempt."""
    return AttemptKey(1, FIRST + node, attempt)


def succeeded(node, attempt=0):
    """A node's report of a success."""
    return Succeeded(key(node, attempt), 0.5, Outcome(), (0, 0))


def caught(node, attempt=0):
    """A node's report of a failure that its worker has caught: it has a result as well."""
    failure = failed(node, attempt)
    return failure._replace(outcome=Outcome())


def failed(node, attempt=0):
    """A node's report of a failure."""
    return Failed(key(node, attempt), 0.5, "ValueError", "no", "", True, (0, 0))


def lost(node, attempt=0):
    """The worker of a node is gone."""
    return Lost(key(node, attempt), "WorkerDied", "it was killed", may_retry=True)


def gang_of(size):
    """A gang that was taken, and all gangs of its run."""
    gangs = Gangs()
    tasks = [BeginTask("node", FIRST + node, 0, (node,), (), ()) for node in range(size)]
    orders = [StartTask(key(node), "node", (node,), [], b"", (), ()) for node in range(size)]
    gangs.begin(tasks, orders)
    (gang,) = gangs
    return gang, gangs


def told(settled):
    """What is recorded: of each node the kind of its end, and what follows."""
    return [(end.key.task - FIRST, type(end).__name__, verdict) for end, verdict in settled]


def test_a_gang_has_succeeded_when_each_node_has_a_result():
    """Also one whose worker has caught a failure; the order is that of the ends."""
    gang, _ = gang_of(2)
    gang.add(caught(1))
    assert not gang.has_ended
    gang.add(succeeded(0))
    assert gang.has_ended
    settled = gang.settle(Verdict.FAIL)  # the run may be ending: there is nothing left to fail
    assert told(settled) == [(1, "Failed", Verdict.CATCH), (0, "Succeeded", None)]
    assert all(has_result(end) for end, _ in settled)


@pytest.mark.parametrize("verdict", [Verdict.RETRY, Verdict.FAIL])
def test_what_happens_to_the_first_failure_happens_to_all_nodes(verdict):
    """Whoever had succeeded counts as stopped, a result that was caught is dropped."""
    gang, _ = gang_of(3)
    for end in (succeeded(2), lost(0), caught(1)):
        gang.add(end)
    settled = gang.settle(verdict)
    assert told(settled) == [(0, "Lost", verdict), (2, "Lost", verdict), (1, "Failed", verdict)]
    assert not any(has_result(end) for end, _ in settled)
    assert settled[1][0].exception_type in STOPPED
    assert settled[1][0].how == "it had succeeded, but node 0 of its gang has failed"


def test_results_are_kept_until_the_last_stand_in_has_ended():
    """A caught failure without a result is recorded alone, so that its stand-in can begin."""
    gang, gangs = gang_of(4)
    for end in (succeeded(0), caught(1), lost(2), failed(3)):
        gang.add(end)
    assert told(gang.settle(Verdict.CATCH)) == [
        (2, "Lost", Verdict.CATCH),
        (3, "Failed", Verdict.CATCH),
    ]
    assert not gang.has_ended
    assert gangs.held_back == 2
    for node in (2, 3):
        gangs.begin_stand_in(key(node, 1))
        assert gangs.of(key(node, 1)) is gang
        gang.add(succeeded(node, 1))
    assert gang.has_ended
    assert told(gang.settle(Verdict.FAIL)) == [
        (0, "Succeeded", None),
        (1, "Failed", Verdict.CATCH),
        (2, "Succeeded", None),
        (3, "Succeeded", None),
    ]


def test_a_gang_fails_as_a_whole_if_a_stand_in_does():
    """The run fails for that reason, and not for the failure that was caught before."""
    gang, gangs = gang_of(3)
    for end in (caught(0), lost(1), succeeded(2)):
        gang.add(end)
    gang.settle(Verdict.CATCH)
    gangs.begin_stand_in(key(1, 1))
    gang.add(lost(1, 1))
    settled = gang.settle(Verdict.FAIL)
    assert told(settled) == [
        (1, "Lost", Verdict.FAIL),
        (0, "Failed", Verdict.FAIL),
        (2, "Lost", Verdict.FAIL),
    ]
    assert not any(has_result(end) for end, _ in settled)


def test_a_gang_whose_stand_ins_will_not_come_has_failed():
    """The run is ending; a gang without stand-ins goes on until its nodes have ended."""
    gang, gangs = gang_of(2)
    assert gangs.give_up() == []
    gang.add(succeeded(0))
    gang.add(lost(1))
    gang.settle(Verdict.CATCH)
    assert gangs.give_up() == [gang]
    assert gangs.give_up() == []
    ((end, verdict),) = gang.settle(Verdict.FAIL)
    assert (type(end), verdict) == (Lost, Verdict.FAIL)
    assert end.how == "it had succeeded, but the run is ending"


def test_a_gang_is_not_given_up_while_a_stand_in_runs():
    """It has ended with that one, and has failed, since another one did not come."""
    gang, gangs = gang_of(2)
    gang.add(lost(0))
    gang.add(lost(1))
    gang.settle(Verdict.CATCH)
    gangs.begin_stand_in(key(0, 1))
    assert gangs.give_up() == []
    gang.add(succeeded(0, 1))
    assert gang.has_ended
    assert told(gang.settle(Verdict.FAIL)) == [(0, "Lost", Verdict.FAIL)]


@pytest.mark.parametrize(
    ("stopping", "other_failed"), [(False, False), (True, False), (False, True)]
)
def test_a_stand_in_that_is_given_back_is_taken_again_unless_it_is_in_vain(stopping, other_failed):
    """It is in vain if the run is ending, or another stand-in of the gang has failed."""
    gang, gangs = gang_of(2)
    gang.add(lost(0))
    gang.add(lost(1))
    gang.settle(Verdict.CATCH)
    for node in (0, 1):
        gangs.begin_stand_in(key(node, 1))
    if other_failed:
        gang.add(lost(1, 1))
    end = gangs.given_back(FIRST, stopping=stopping)
    assert (end is None) is not (stopping or other_failed)
    assert end is None or end.key == key(0, 1)
    assert (FIRST in gang.awaited) is (end is None)
    assert gangs.again(FIRST) is None


def test_an_attempt_that_has_ended_is_of_no_gang_any_more():
    """Nor is one that is not the latest, nor any when the gang is recorded."""
    gang, gangs = gang_of(2)
    assert gangs.of(key(0)) is gang
    assert gangs.of(key(0, 1)) is None
    gang.add(lost(0))
    assert gangs.of(key(0)) is None
    gang.add(succeeded(1))
    gangs.end(gang)
    assert len(gangs) == 0
    assert gangs.given_back(FIRST, stopping=False) is None


ENDS = st.sampled_from([succeeded, caught, failed, lost])


@given(
    st.lists(ENDS, min_size=1, max_size=5),
    st.lists(st.sampled_from([succeeded, failed, lost, None]), min_size=5, max_size=5),
    st.sampled_from(Verdict),
)
def test_results_are_recorded_of_all_nodes_or_of_none(ends, stand_ins, verdict):
    """However nodes and stand-ins end: no gang is half a success. `None` is one that never came."""
    gang, gangs = gang_of(len(ends))
    for node, end in enumerate(ends):
        gang.add(end(node))
    first = gang.settle(verdict)
    awaited = sorted(gang.awaited)
    for task_id in awaited:
        end = stand_ins[task_id - FIRST]
        if end is not None:
            gangs.begin_stand_in(AttemptKey(1, task_id, 1))
            gang.add(end(task_id - FIRST, 1))
    gangs.give_up()
    assert gang.has_ended
    second = gang.settle(Verdict.FAIL) if awaited else []
    results = [end.key.task for end, _ in first + second if has_result(end)]
    assert not any(has_result(end) for end, _ in first) or not second
    assert sorted(results) in ([], [FIRST + node for node in range(len(ends))])
    recorded = {end.key.task for end, _ in first + second}
    assert recorded == {FIRST + node for node in range(len(ends))}
