"""How many are let in at a time."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncflow.engine.admission import Admission
from asyncflow.errors import EngineClosedError


async def waiting(admission, priority=0):
    """A task that waits to be let in."""
    task = asyncio.create_task(admission.enter(priority))
    await asyncio.sleep(0)
    return task


async def test_who_comes_when_it_is_full_waits_and_is_let_in_in_order():
    """One leaves, and who came first is let in."""
    admission = Admission(1)
    inside = await admission.enter()
    first, second = await waiting(admission), await waiting(admission)
    admission.leave(inside)
    inside = await first
    assert (second.done(), admission.inside, admission.waiting) == (False, 1, 1)
    admission.leave(inside)
    await second


async def test_a_higher_priority_is_let_in_first():
    """It passes those who wait with a lower one."""
    admission = Admission(1)
    inside = await admission.enter()
    low, high = await waiting(admission), await waiting(admission, 3)
    admission.leave(inside)
    inside = await high
    assert not low.done()
    admission.leave(inside)
    await low


async def test_nobody_waits_without_a_bound():
    """Zero lets in any number."""
    admission = Admission(0)
    for _ in range(1000):
        await admission.enter()
    assert (admission.inside, admission.waiting) == (1000, 0)


async def test_a_place_is_not_lost_when_who_was_let_in_is_cancelled_at_that_moment():
    """Let in and cancelled in the same turn of the loop: the next has the place."""
    admission = Admission(1)
    inside = await admission.enter()
    first, second = await waiting(admission), await waiting(admission)
    admission.leave(inside)
    first.cancel()
    await second
    assert (first.cancelled(), admission.inside, admission.waiting) == (True, 1, 0)


async def test_when_it_closes_all_who_wait_are_told():
    """They get the error that says what is closed."""
    admission = Admission(1)
    await admission.enter()
    task = await waiting(admission)
    admission.close()
    with pytest.raises(EngineClosedError):
        await task


@given(st.lists(st.tuples(st.sampled_from(["enter", "leave", "cancel"]), st.integers(0, 9))))
def test_whatever_happens_there_are_never_too_many_and_no_place_stays_empty(moves):
    """After each move, it is full or nobody waits."""

    async def play():
        admission, tasks, inside = Admission(3), [], 0
        for move, number in moves:
            if move == "enter":
                tasks.append(await waiting(admission, number % 3))
            elif move == "leave" and admission.inside:
                admitted = [t for t in tasks if t.done() and not t.cancelled()]
                task = admitted[number % len(admitted)]
                tasks.remove(task)
                admission.leave(task.result())
            elif move == "cancel" and tasks and not (task := tasks[number % len(tasks)]).done():
                task.cancel()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert admission.inside <= 3
            assert admission.inside == 3 or not admission.waiting
            inside = admission.inside
        admission.close()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert admission.inside == inside

    asyncio.run(play())
