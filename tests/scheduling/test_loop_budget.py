"""Sharing the event loop."""

from __future__ import annotations

import asyncio
import time

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
    """Of fifty that are ready at once and take 3 ms each, few are done between two turns."""
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
            most = max(most, done - before) if before > 20 else most
    assert most <= 2


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
