"""The call of the event loop that wakes a task, or begins it, is lost."""

from __future__ import annotations

import asyncio
import contextvars
from contextlib import contextmanager
from typing import Any

import pytest

from asyncflow._support.conditions import Condition, look_again
from asyncflow._support.event_loop import SureTask, UncancellableTask
from asyncflow._support.waiter import Waiter
from asyncflow.engine.admission import Admission
from asyncflow.scheduling.loop_budget import LoopBudget
from tests.support.raising_handler import SignalError


@contextmanager
def call_lost(*, raises=False):
    """The loop loses the first call within the block, or raises an exception instead."""
    loop: Any = asyncio.get_running_loop()
    was_lost = False

    def call_soon(function, *arguments, context=None):
        nonlocal was_lost
        handle = type(loop).call_soon(loop, function, *arguments, context=context)
        if not was_lost:
            was_lost = True
            handle.cancel()
            if raises:
                raise SignalError
        return handle

    loop.call_soon = call_soon
    try:
        yield
    finally:
        del loop.call_soon
    assert was_lost


async def turns(count=5):
    """Let the loop turn."""
    for _ in range(count):
        await asyncio.sleep(0)


async def begun(coroutine):
    """A task that waits for something."""
    task = asyncio.ensure_future(coroutine)
    await turns()
    assert not task.done()
    return task


@pytest.mark.parametrize("raises", [False, True])
async def test_a_condition_wakes_its_waiter_with_the_next_look(raises):
    """The waiter had its result, and its task did not know."""
    held: list[int] = []
    condition = Condition(lambda: bool(held))
    task = await begun(condition.wait())
    held.append(1)
    try:
        with call_lost(raises=raises):
            condition.look()
    except SignalError:
        pass
    await turns()
    assert not task.done()
    look_again(asyncio.get_running_loop())
    await turns()
    assert task.done()
    assert await task is True


@pytest.mark.parametrize("is_cancelled_before", [False, True])
async def test_a_cancellation_reaches_the_task_with_the_next_look(is_cancelled_before):
    """Whichever call was lost: that of the cancellation, or one before it."""
    condition = Condition(lambda: True)
    condition._holds = lambda: False
    task = await begun(condition.wait())
    if is_cancelled_before:
        with call_lost():
            task.cancel()
    else:
        condition._holds = lambda: True
        with call_lost():
            condition.look()
        task.cancel()
    await turns()
    assert not task.done()
    look_again(asyncio.get_running_loop())
    await turns()
    assert task.cancelled()


async def test_a_task_is_not_woken_twice():
    """The second call would end what the task waits for next."""
    first: Waiter[None] = Waiter()
    second: Waiter[None] = Waiter()

    async def waits():
        await first
        await second

    task = await begun(waits())
    first.wake_again()  # nothing to do
    first.set_result(None)
    for _ in range(3):
        first.wake_again()
    await turns()
    first.wake_again()
    await turns()
    assert not task.done()
    second.set_result(None)
    await task


async def test_a_waiter_whose_task_is_gone_refers_to_nothing():
    """Else only the garbage collector would free the task."""
    waiter: Waiter[None] = Waiter()

    async def waits():
        await waiter

    coroutine = waits()
    coroutine.send(None)
    waiter.add_done_callback(print)
    coroutine.close()
    assert not waiter._callbacks
    assert not waiter._to_wake


async def test_the_loop_budget_lets_a_piece_go_on_with_the_next_look():
    """It had admitted the piece."""
    budget = LoopBudget()
    budget._admitted = budget._at_once
    task = await begun_turn(budget)
    with call_lost():
        budget._next()
    await turns()
    assert not task.done()
    look_again(asyncio.get_running_loop())
    await turns()
    await task
    assert not budget._waiting


async def begun_turn(budget):
    """A task that waits for its turn, which nothing but a call of the test begins."""
    task = asyncio.ensure_future(budget.turn())
    await asyncio.sleep(0)
    budget._turning.cancel()
    assert len(budget._waiting) == 1
    return task


@pytest.mark.parametrize("raises", [False, True])
async def test_a_run_that_was_admitted_begins_with_the_next_look(raises):
    """Its place is its own, and is not given to another one."""
    admission = Admission(1)
    inside = await admission.enter()
    first = await begun(admission.enter())
    second = await begun(admission.enter())
    try:
        with call_lost(raises=raises):
            admission.leave(inside)
    except SignalError:
        pass
    await turns()
    assert (first.done(), second.done()) == (False, False)
    admission.call_again()
    await turns()
    assert (first.done(), second.done()) == (True, False)
    assert (admission.inside, admission.waiting) == (1, 1)
    admission.leave(await first)
    await second


@pytest.mark.parametrize("kind", [SureTask, UncancellableTask])
async def test_a_task_whose_first_step_was_lost_begins_with_the_next_look(kind):
    """With its name, its context, and those who wait for its end."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    variable.set("before")

    async def work():
        return variable.get(), asyncio.current_task()

    with call_lost():
        task: Any = kind(work(), name="named")
    ended: list[Any] = []
    task.add_done_callback(ended.append)
    variable.set("after")
    await turns()
    assert not task.done()
    look_again(asyncio.get_running_loop())
    look_again(asyncio.get_running_loop())
    await turns()
    assert ended == [task]
    assert await task == ("before", task)
    assert task.get_name() == "named"


async def test_a_task_that_was_cancelled_before_its_lost_first_step_is_cancelled():
    """Not begun."""
    lines: list[str] = []

    async def work():
        lines.append("begun")

    with call_lost():
        task: SureTask[None] = SureTask(work())
    task.cancel()
    look_again(asyncio.get_running_loop())
    await turns()
    assert task.cancelled()
    assert not lines


async def test_a_task_that_begins_late_begins_once():
    """A look comes before its first step."""
    lines: list[str] = []

    async def work():
        lines.append("begun")
        await asyncio.sleep(0)
        lines.append("ended")

    task: SureTask[None] = SureTask(work())
    for _ in range(3):
        look_again(asyncio.get_running_loop())
    await task
    assert lines == ["begun", "ended"]
