"""The places of one engine: which are for others when a task has ended."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from asyncflow.store.object_store.limit_places import Places, below
from tests.support.call_counts import counted_calls

NUMBERS = st.integers(0, 12)
WHAT = ("take", "free", "free", "adopt", "give", "lose", "allow")


@given(st.data())
def test_a_place_is_for_others_while_the_engine_keeps_more_than_it_may(data):
    """In any order of tasks that begin and end, of versions, losses and gifts."""
    places = Places()
    for _ in range(data.draw(st.integers(1, 30))):
        match data.draw(
            st.sampled_from(["take", "free", "free", "adopt", "give", "lose", "allow"])
        ):
            case "take":
                places.take(data.draw(NUMBERS))
            case "free" if places.used:
                place = data.draw(st.sampled_from(sorted(places.used)))
                kept = places.held - places.returning
                over = any(
                    place < bound and below(kept, bound) > most for bound, most in places.allowed
                )
                assert places.free(place) == (over and place in places.held)
                assert place not in places.used
            case "adopt":
                places.adopt(data.draw(st.frozensets(NUMBERS)) | places.used)
            case "give":
                places.give(places.idle_for_others())
            case "lose":
                places.lose()
            case "allow":
                places.allowed = data.draw(st.lists(st.tuples(NUMBERS, NUMBERS), max_size=3))


def test_the_end_of_a_task_costs_as_much_whatever_the_number_of_places():
    """Also while others want some."""
    places = Places()
    places.adopt(frozenset(range(50_000)))
    places.allowed = [(50_000, 40_000)]
    for _ in range(101):
        places.take(50_000)
    places.free(0)
    with counted_calls() as calls:
        for place in range(1, 101):
            assert places.free(place)
    assert calls[0] < 10 * 100
