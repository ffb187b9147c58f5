"""Sharing the event loop."""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import suppress

import pytest

from asyncflow.scheduling.loop_budget import LoopBudget


async def turns_until(done):
    """How many turns the loop takes until then."""
    turns = 0
    while not done():
        turns += 1
        await asyncio.sleep(0)
    return turns


async def test_a_single_piece_of_work_does_not_wait():
    """While there is time, nobody pays a turn of the loop."""
    pace = LoopBudget()
    waiting = pace.turn()
    try:
        waiting.send(None)
    except StopIteration:
        return
    raise AssertionError


async def test_long_pieces_of_work_are_spread_over_turns_of_the_loop():
    """Of fifty that are ready at once and take 3 ms each, one is done in a turn, from the first on.

    Two may be between two turns of another task, which has its place in the turn by chance.
    """
    pace, done, most = LoopBudget(), 0, 0

    async def work():
        nonlocal done
        for _ in range(2):
            await pace.turn()
            time.sleep(0.003)
            done += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(50):
            group.create_task(work())
        while done < 100:
            before = done
            await asyncio.sleep(0)
            most = max(most, done - before)
    assert most <= 2


async def test_a_piece_that_others_have_kept_from_its_turn_comes_first_in_the_next():
    """It was admitted, and those before it took the time: nobody passes it."""
    pace, order = LoopBudget(), []

    async def work(number):
        await pace.turn()
        order.append(number)
        time.sleep(0.003 if number % 7 == 0 else 0)

    await asyncio.gather(*(work(number) for number in range(100)))
    assert order == [*range(100)]


async def test_a_piece_has_its_turn_though_other_work_takes_all_the_time():
    """An application that is always late does not keep runs from going on."""
    pace, turns = LoopBudget(), 0

    async def work():
        for _ in range(10):
            await pace.turn()

    task = asyncio.create_task(work())
    while not task.done():
        turns += 1
        pace.until()  # as assigning tasks does
        time.sleep(0.002)
        await asyncio.sleep(0)
    assert turns < 40


async def test_who_comes_later_passes_nobody_who_was_let_go_on():
    """A waiter that goes on in the next turn begins before one that asks meanwhile."""
    pace, order = LoopBudget(), []

    async def work(name):
        await pace.turn()
        order.append(name)

    tasks = [asyncio.create_task(work(number)) for number in range(5)]
    for _ in range(10):
        if not pace._let_go:  # the fifth has not been let go on
            await asyncio.sleep(0)
    assert pace._let_go == 1
    await work("late")
    await asyncio.gather(*tasks)
    assert order == [0, 1, 2, 3, 4, "late"]


async def test_all_of_them_come_in_the_order_in_which_they_asked():
    """Nobody is passed, and nobody is forgotten when one that waits is cancelled."""
    pace, order = LoopBudget(), []

    async def work(number):
        await pace.turn()
        order.append(number)

    tasks = [asyncio.create_task(work(number)) for number in range(200)]
    await asyncio.sleep(0)
    tasks[100].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert order == [number for number in range(200) if number != 100]


async def test_without_work_it_takes_no_turns():
    """Nothing is left in the loop once the last one was let go on."""
    pace = LoopBudget()
    await pace.turn()
    assert await turns_until(lambda: not pace._turning) < 5


async def test_the_time_for_work_is_one_for_all_in_a_turn_of_the_loop():
    """Who asks later in the same turn gets no more of it; the next turn has time of its own."""
    pace, loop = LoopBudget(), asyncio.get_running_loop()
    first = pace.until()
    while loop.time() <= first:
        pass
    assert pace.until() == first
    await asyncio.sleep(0)
    assert pace.until() > first


class SignalError(Exception):
    """What a signal handler raises."""


def raising_at(count):
    """A trace function that raises once, at the line of this number of `LoopBudget._next`."""
    lines = 0

    def on_line(_frame, event, _argument):
        nonlocal lines
        lines += event == "line"
        if event == "line" and lines == count:
            raise SignalError
        return on_line

    def on_call(frame, _event, _argument):
        return on_line if frame.f_code is LoopBudget._next.__code__ else None

    return on_call


@pytest.mark.parametrize("line", range(1, 61))
async def test_a_signal_handler_that_raises_as_a_turn_begins_forgets_nobody(line, monkeypatch):
    """Wherever it raises: all that wait go on once somebody looks again."""
    monkeypatch.setattr("asyncflow.scheduling.loop_budget._LOST_SECONDS", 0.0)
    asyncio.get_running_loop().set_exception_handler(lambda _loop, _what: None)
    pace, before = LoopBudget(), sys.gettrace()
    tasks = [asyncio.create_task(pace.turn()) for _ in range(12)]
    sys.settrace(raising_at(line))
    try:
        for _ in range(20):
            await asyncio.sleep(0)
    finally:
        sys.settrace(before)
    for _ in range(50):
        with suppress(SignalError):
            pace.call_again()
        await asyncio.sleep(0)
    done = [task.done() for task in tasks]
    for task in tasks:
        task.cancel()
    assert done == [True] * 12
    await asyncio.gather(*tasks)
