"""Who is served next."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from asyncflow.scheduling.fair_turns import FairTurns


@dataclass
class Run:
    number: int
    priority: int = 0


def serve(turns, count):
    """The numbers of those that are served, one after the other."""
    served = []
    for _ in range(count):
        item = turns.next()
        served.append(item.number)
        turns.served(item)
    return served


def test_runs_of_one_priority_are_served_in_turn():
    """Nobody is served twice before everybody was once."""
    turns: FairTurns[Run] = FairTurns()
    for number in range(3):
        turns.add(Run(number))
    assert serve(turns, 7) == [0, 1, 2, 0, 1, 2, 0]


def test_a_higher_priority_is_served_first():
    """While it waits, nobody of a lower one is served."""
    turns: FairTurns[Run] = FairTurns()
    urgent = Run(1, priority=5)
    turns.add(Run(0))
    turns.add(urgent)
    assert serve(turns, 3) == [1, 1, 1]
    turns.remove(urgent)
    assert serve(turns, 2) == [0, 0]


def test_a_shut_line_is_passed_over_and_keeps_its_order():
    """Who waits in the line that is shut is first again once it is open."""
    turns: FairTurns[Run] = FairTurns()
    first, second = Run(0), Run(1)
    turns.add(first)
    turns.add(second)
    assert not turns.in_line(second, True)
    assert turns.next(shut=[False]) is second
    assert turns.next(shut=[True]) is first
    assert turns.next(shut=[True, False]) is None
    assert turns.next() is first


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["add", "remove", "serve", "change"]), st.integers(0, 5), st.booleans()
        ),
        max_size=60,
    )
)
def test_whatever_happens_the_first_is_who_waited_longest_of_the_highest_priority(moves):
    """The two lines give the same order as a plain list of who waits, by priority and ticket."""
    runs = [Run(number, priority=number % 3) for number in range(6)]
    turns: FairTurns[Run] = FairTurns()
    model: dict[int, tuple[int, bool]] = {}
    for tickets, (move, number, is_async) in enumerate(moves):
        run = runs[number]
        if move == "add":
            turns.add(run)
            model.setdefault(number, (tickets, False))
        elif move == "remove":
            turns.remove(run)
            model.pop(number, None)
        elif number in model and move == "serve":
            turns.served(run)
            model[number] = tickets, model[number][1]
        elif number in model:
            assert turns.in_line(run, is_async) == (model[number][1] is is_async)
            model[number] = model[number][0], is_async
        for shut in ([], [True], [False]):
            order = sorted(
                (-runs[each].priority, ticket, each)
                for each, (ticket, line) in model.items()
                if line not in shut
            )
            found = turns.next(shut)
            assert (found and found.number) == (order[0][2] if order else None)
        assert len(turns) == len(model)
