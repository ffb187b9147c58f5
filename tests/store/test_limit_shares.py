"""The protocol by which engines share a limit in an object store, without a store."""

from __future__ import annotations

import tracemalloc
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncflow.errors import LimitError
from asyncflow.store.limit_files import Bounds
from asyncflow.store.object_store.limit_places import Places
from asyncflow.store.object_store.limit_rate import RateShare
from asyncflow.store.object_store.limit_share import LimitShare, Look, Timing
from asyncflow.store.object_store.limit_state import (
    MOST_BYTES,
    MOST_PLACES,
    MOST_WANTS,
    SLICES,
    Entry,
    LimitState,
    pack,
    unpack,
)
from asyncflow.values import LEAST_PER_SECOND
from tests.support.limit_world import GRACE, LimitWorld, World

BAD = World(late=0.05, twice=0.05, refused=0.05, lost=0.05)
WORST = World(late=0.3, lost=0.5)
MANY = 1_000_000  # tasks that wait


def world_of(*bounds, seed=1, **options):
    """A world without mishaps, and an engine for each bound, with more tasks than ever end."""
    world = LimitWorld(Random(seed), World())
    return world, [world.add(bound, **{"waiting": MANY, **options}) for bound in bounds]


# --- the bound ------------------------------------------------------------------------------------


def live(seed, rounds):
    """Let engines come, go, die and be cut off; the most tasks at a time, and the largest bound.

    The world itself fails if two tasks ever have the same place, or one beyond its bound.
    """
    random = Random(seed)
    world = LimitWorld(random, random.choice([BAD, World(), WORST]))
    bounds = random.choice([[1], [2], [3], [5], [1, 3], [2, 5]])
    for _ in range(random.randint(2, 5)):
        world.add(random.choice(bounds), waiting=random.randint(0, 50))
    for _ in range(rounds):
        world.run(random.uniform(0, 20))
        engine = random.choice(world.engines)
        match random.randrange(8):
            case 0:
                world.kill(engine)
                world.add(random.choice(bounds), waiting=random.randint(0, 50))
            case 1:
                engine.is_cut = not engine.is_cut
            case 2:
                engine.is_leaving = not engine.is_leaving
            case 3:
                engine.task_seconds = random.choice([0.01, 1.0, 30.0, 300.0])
            case _:
                engine.waiting += random.randint(0, 20)
                world.start_tasks(engine)
    return world.most, max(bounds)


@settings(max_examples=12)
@given(st.integers(0, 1 << 32))
def test_no_two_tasks_have_a_place_whatever_happens_to_engines_and_requests(seed):
    """Requests get lost, come late or twice; engines die, come, go, and lose their network."""
    most, bound = live(seed, 20)
    assert most <= bound


@pytest.mark.slow
@settings(max_examples=150)
@given(st.integers(0, 1 << 32))
def test_the_bound_holds_in_many_long_lives(seed):
    """The same, for longer."""
    most, bound = live(seed, 60)
    assert most <= bound


def test_an_engine_without_network_stops_its_tasks_before_others_have_their_places():
    """Though its clock is slow and that of the other one fast."""
    world, (cut, other) = world_of(1, 1, task_seconds=10_000.0, speed=1.0)
    cut.speed, other.speed = 0.95, 1.05
    world.run(1)
    assert len(cut.running) + len(other.running) == 1
    holder, waiting = (cut, other) if cut.running else (other, cut)
    holder.is_cut = True
    world.run(60 / 0.95 + 1 + GRACE)
    assert not holder.running
    assert not waiting.running
    world.run(30)
    assert len(waiting.running) == 1


# --- shares and turns -----------------------------------------------------------------------------


def test_a_lone_engine_has_all_places_after_one_request():
    """And then only renews its entry."""
    world, (engine,) = world_of(5, waiting=5, task_seconds=1000.0, speed=1.0)
    world.run(1)
    assert len(engine.running) == 5
    assert world.requests == 2  # it did not know that there is no object
    world.run(100)
    assert world.requests == pytest.approx(12, abs=1)


@pytest.mark.parametrize(("places", "engines"), [(5, 2), (6, 4), (3, 3), (100, 7)])
def test_engines_with_enough_work_differ_by_one_place_at_the_most(places, engines):
    """Within seconds, though one of them had all at first."""
    world, some = world_of(*[places] * engines, task_seconds=0.5)
    world.run(10)
    for _ in range(20):
        world.run(1)
        held = [world.held(engine) for engine in some]
        assert max(held) - min(held) <= 1
        assert sum(held) == places


def test_engines_get_no_more_than_they_want():
    """What one does not need is for the other."""
    world, (small, large) = world_of(10, 10, waiting=0, task_seconds=1000.0)
    small.waiting = 2
    world.run(1)
    large.waiting = MANY
    world.run(13)
    assert (len(small.running), len(large.running)) == (2, 8)


@pytest.mark.parametrize(("places", "engines"), [(1, 2), (2, 5), (1, 4)])
def test_each_engine_has_its_turn_where_there_are_fewer_places(places, engines):
    """None has twice as many as another in the long run."""
    world, some = world_of(*[places] * engines, task_seconds=0.05)
    world.run(engines * 4.0)
    assert all(engine.started for engine in some)
    world.run(100)
    counts = sorted(len(engine.started) for engine in some)
    assert counts[-1] < 2 * counts[0]
    assert world.running() <= places


def test_idle_places_go_to_whoever_wants_them():
    """Within a renewal and a second: who has all of them and needs none looks no more often."""
    world, (first, second) = world_of(4, 4, waiting=0, task_seconds=1000.0)
    first.waiting = 1
    world.run(1)
    assert world.held(first) == 4
    second.waiting = 3
    world.run(13)
    assert (len(first.running), len(second.running)) == (1, 3)


def test_an_engine_that_has_nothing_to_do_leaves():
    """After half a minute; then it asks nothing at all."""
    world, (engine,) = world_of(4, waiting=3, speed=1.0)
    world.run(40)
    assert not world.state.engines
    asked = world.requests
    world.run(1000)
    assert world.requests == asked
    engine.waiting = 3
    world.run(2)
    assert len(engine.started) == 6


def test_an_engine_that_closes_is_out_at_once():
    """Its places are free for others."""
    world, (first, second) = world_of(1, 1, waiting=0, task_seconds=1.0)
    first.waiting = 1
    world.run(3)
    first.is_leaving = True
    second.waiting = 1
    world.run(2)
    assert [*world.state.engines] == [second.share.engine]
    assert second.started


def test_what_a_dead_engine_had_is_for_others_after_its_lease():
    """Not before, by their own clocks."""
    world, (dead, other) = world_of(2, 2, waiting=0, task_seconds=1000.0, speed=1.0)
    dead.waiting = 2
    world.run(1)
    world.kill(dead)
    other.waiting = 2
    world.run(88)
    assert not other.running
    world.run(5)
    assert len(other.running) == 2


def test_a_waiting_engine_that_died_holds_up_nobody_for_its_whole_lease():
    """Its turn is for others once it was silent for a while."""
    world, (one, dead, other) = world_of(1, 1, 1, task_seconds=0.1)
    world.run(10)
    world.kill(dead)
    world.run(40)
    before = [len(each.started) for each in (one, other)]
    world.run(20)
    after = [len(each.started) for each in (one, other)]
    assert all(new > old for new, old in zip(after, before, strict=True))


def test_an_engine_that_was_taken_out_begins_anew_when_its_tasks_have_ended():
    """Its places belong to others by then."""
    share = LimitShare("a", "host", Timing())
    share.on_seen(LimitState(), "", 0.0, 0.0)
    share.expect(1, 2, 2)
    draft = share.next_request(0.0, 0.0)
    assert isinstance(draft, LimitState)
    share.on_written(draft, "1", 0.0, 0.0)
    place = share.take(2, 1.0, 1.0)
    assert place is not None
    share.on_seen(LimitState(changes=9), "9", 0.0, 2.0)
    assert share.is_lost
    assert share.take(2, 2.0, 2.0) is None
    assert not isinstance(share.next_request(2.0, 2.0), LimitState)
    share.give_back(place, 3.0)
    share.on_seen(LimitState(changes=9), "9", 0.0, 3.0)
    assert isinstance(share.next_request(3.0, 3.0), LimitState)


# --- the rate -------------------------------------------------------------------------------------


def most_in(seconds, started):
    """The most starts within any span of so many seconds."""
    started = sorted(started)
    return max(sum(at <= each < at + seconds for each in started) for at in started)


@pytest.mark.parametrize("engines", [1, 2, 5])
def test_engines_share_a_rate(engines):
    """In no span of time do more tasks start than the rate allows, and one for each engine."""
    world, some = world_of(*[0] * engines, rate=10.0, waiting=0, speed=1.0)
    world.run(60)
    started = [at for engine in some for at in engine.started]
    assert most_in(20, started) <= 20 * 10 + engines
    late = [sum(at > 20 for at in engine.started) for engine in some]
    assert sum(late) > 0.9 * 40 * 10 / (1 + 0.25 * 10 / engines)  # it is tried four times a second
    assert max(late) - min(late) <= 0.1 * max(late) + 1


def test_a_rate_holds_though_engines_follow_each_other():
    """What the last start of one owes is waited for by the next."""
    world = LimitWorld(Random(1), World())
    started = []
    for _ in range(5):
        engine = world.add(0, rate=0.1, speed=1.0)
        world.run(3)
        engine.is_leaving, engine.rate = True, 0.0
        world.run(1)
        started += engine.started
    assert started
    assert most_in(10, started) <= 1 + 1
    engine = world.add(0, rate=0.1, speed=1.0)
    world.run(30)
    assert most_in(30, started + engine.started) <= 3 + 1


# --- the object -----------------------------------------------------------------------------------

entries = st.builds(
    Entry,
    host=st.text(max_size=5),
    beats=st.integers(0, 1 << 40),
    lease=st.floats(1, 1000),
    places=st.just(frozenset()),
    wants=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 99)), max_size=2).map(tuple),
    since=st.integers(0, 99),
    rate=st.just(0.0) | st.floats(LEAST_PER_SECOND, 99),
    slices=st.integers(0, SLICES // 4),
)


@given(st.lists(entries, max_size=4), st.permutations(range(12)))
def test_what_is_written_is_what_is_read(some, places):
    """And no two writings have the same bytes."""
    engines = {
        str(number): entry._replace(places=frozenset(places[3 * number : 3 * number + 2]))
        for number, entry in enumerate(some)
    }
    state = LimitState(Bounds(3, 0.5), 7, engines, 1.5, 9.0)
    assert unpack(pack(state), "api") == state
    assert pack(state) != pack(state)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"version": 1', b'"version": 2'),
        (b'"beats": 1', b'"beats": "often"'),
        (b"[[0, 2]]", b"[[0, 3]]"),
        (b"[[0, 2]]", b"[[0, 9999999]]"),
        (b"[[0, 2]]", b"[[2, 0]]"),
        (b'"slices": 1', b'"slices": 1000001'),
        (b'"slices": 1', b'"slices": -1'),
        (b'"lease": 90.0', b'"lease": NaN'),
        (b'"at_once": 5', b'"at_once": -5'),
        (b'"per_second": 2.0', b'"per_second": 0'),
        (b'"version": 1', b'"version": "one"'),
        (b'"host": "host"', b'"host": ' + b"[" * 100_000),
        (b'"owed": [0.0,', b'"owed": [NaN,'),
        (b'"owed": [0.0,', b'"owed": [Infinity,'),
        (b'"owed": [0.0,', b'"owed": [-1,'),
        (b'"rate": 0.0', b'"rate": NaN'),
        (b'"rate": 0.0', b'"rate": 1e-320'),
        (b'"rate": 0.0', b'"rate": -1'),
        (b'"wants": []', b'"wants": [[-1, 5]]'),
        (b'"wants": []', b'"wants": [[5, 1e300]]'),
        (b'"wants": []', b'"wants": [' + b"[1, 1], " * 1_000 + b"[1, 1]]"),
        (b'"word"', b'"padding": "' + b" " * MOST_BYTES + b'", "word"'),
        (b'{"version"', b'["version"'),
        (b'"engines"', b'"motors"'),
    ],
)
def test_nonsense_is_told_and_not_obeyed(old, new):
    """The error names the limit, and says what to do."""
    engines = {
        "a": Entry("host", 1, 90.0, frozenset({0, 1}), slices=1),
        "b": Entry("host", 0, 80.0, frozenset({2})),
    }
    data = pack(LimitState(Bounds(5, 2.0), engines=engines))
    assert old in data
    with pytest.raises(LimitError, match=r"asyncflow limit set api|upgrade asyncflow"):
        unpack(data.replace(old, new, 1), "api")


@pytest.mark.parametrize(
    "field",
    ['"places": [[0, 100000]]', f'"places": [{"[],[]," * 300_000}[]]'],
    ids=["places of many engines", "many ranges"],
)
def test_no_object_takes_more_memory_than_its_length_allows(field):
    """Whatever numbers it holds: a place is counted once, and an object is 4 MiB at the most."""
    entry = pack(LimitState(engines={"a": Entry("host", 1, 90.0)})).decode().partition('"a": ')[2]
    entry = entry.removesuffix("}}").replace('"places": []', field)
    many = ", ".join(f'"{number}": {entry}' for number in range(100 if len(field) < 100 else 1))
    data = pack(LimitState()).replace(b'"engines": {', f'"engines": {{{many}'.encode())
    tracemalloc.start()
    with pytest.raises(LimitError, match="is damaged"):
        unpack(data, "api")
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 40 * MOST_BYTES


def test_a_limit_has_no_more_places_than_its_object_can_say():
    """A limit that is set to more is used by more tasks than any engine has, and stays readable."""
    share = LimitShare("a", "host", Timing())
    share.on_seen(LimitState(), "", 0.0, 0.0)
    share.expect(1, 10 * MANY, 10 * MANY)
    draft = share.next_request(0.0, 0.0)
    assert isinstance(draft, LimitState)
    assert len(draft.engines["a"].places) == MOST_PLACES
    assert unpack(pack(draft), "api") == draft


@pytest.mark.parametrize(("others", "wishes"), [(MOST_WANTS - 1, 1), (MOST_WANTS, 0)])
def test_an_engine_wishes_for_no_more_than_can_be_read(others, wishes):
    """Beyond, it waits until others have left: else all would find a damaged limit."""
    engines = {str(number): Entry("host", 1, 90.0, wants=((1, 1),)) for number in range(others)}
    share = LimitShare("a", "host", Timing())
    share.on_seen(LimitState(engines=engines), "1", 0.0, 0.0)
    share.expect(1, 1, 1)
    share.expect(2, 2, 1)
    draft = share.next_request(0.5, 0.5)
    written = draft if isinstance(draft, LimitState) else LimitState(engines=engines)
    assert sum(len(entry.wants) for entry in written.engines.values()) == others + wishes
    assert unpack(pack(written), "api") == written
    share.on_seen(LimitState(), "2", 0.0, 1.0)
    draft = share.next_request(1.0, 1.0)
    assert isinstance(draft, LimitState)
    assert len(draft.engines["a"].wants) == 2


def places_in_use(number):
    """So many places, each with a task."""
    places = Places()
    places.adopt(frozenset(range(number)))
    assert [places.take(number) for _ in range(number)] == [*range(number)]
    return places


def test_an_engine_keeps_a_place_that_those_who_wait_cannot_use():
    """It lies above their bound."""
    places = places_in_use(6)
    places.allowed = [(2, 0)]
    assert not any(places.free(place) for place in (5, 2))
    assert places.free(1)
    assert (places.take(6), places.returning) == (2, {1})


def test_places_above_the_bound_that_was_asked_for_last_count_as_in_use():
    """A step with a smaller bound asks, or the limit was set to less."""
    places = places_in_use(4)
    assert places.demand() == [(4, 4)]
    places.note_bound(2)
    for place in (0, 1, 2):
        places.free(place)
    assert places.demand() == [(4, 1)]
    places.expect(1, 2, 3)
    assert places.demand() == [(2, 3), (4, 4)]
    places.free(3)
    assert places.demand() == [(2, 3)]


def test_an_engine_sleeps_until_its_next_look_or_renewal():
    """A second while tasks wait for more than it has, and else until its entry is to be renewed."""
    share = LimitShare("a", "host", Timing())
    assert share.seconds_until_due(0.0) == float("inf")
    share.on_seen(LimitState(), "", 0.0, 0.0)
    share.expect(1, 2, 3)
    assert share.seconds_until_due(0.25) == 0.75
    draft = share.next_request(0.25, 0.25)
    assert isinstance(draft, LimitState)
    share.on_written(draft, "1", 0.25, 0.5)
    assert share.seconds_until_due(0.75) == 0.75
    share.expect(1, 2, 0)
    assert share.seconds_until_due(0.75) == 9.75
    assert share.seconds_until_due(11.0) == 0.0


def test_an_engine_looks_whether_it_is_in_before_it_leaves():
    """The answer to its first request was lost, so only the object knows."""
    share = LimitShare("a", "host", Timing())
    share.on_seen(LimitState(), "", 0.0, 0.0)
    share.expect(1, 2, 1)
    draft = share.next_request(0.0, 0.0)
    assert isinstance(draft, LimitState)
    share.on_unknown()
    share.expect(1, 2, 0)  # the run was cancelled
    assert share.may_be_in
    assert share.next_request(1.0, 1.0, leave=True) == Look()
    share.on_seen(draft, "1", 0.0, 1.0)
    last = share.next_request(1.0, 1.0, leave=True)
    assert isinstance(last, LimitState)
    assert not last.engines
    share.on_written(last, "2", 1.0, 1.0)
    assert not share.may_be_in


def test_a_rate_that_is_set_anew_lets_the_next_task_start_when_it_says():
    """An engine with half of it waits twice as long as the whole rate says."""
    rate = RateShare(10.0)
    rate.set_slices(SLICES // 2, 0.0)
    assert rate.seconds_until_start(0.001, 0.0, 0.0) == 0.0
    assert rate.seconds_until_start(0.001, 0.0, 1.0) == 1999.0
    rate.hasten(10.0, 1.0)
    assert rate.seconds_until_start(10.0, 0.0, 1.0) == pytest.approx(0.2)
    rate.hasten(0.1, 1.0)
    assert rate.seconds_until_start(0.1, 0.0, 1.0) == pytest.approx(0.2)


def test_who_leaves_before_a_debt_was_waited_for_hands_it_on():
    """It took the debt over with its part of the rate, perhaps in vain: the answer was lost."""
    rate = RateShare(10.0)
    state = LimitState(engines={"a": Entry("host", 1, 90.0, rate=1.0)}, owed=1.5)
    taken = rate.share(state, "a", 0.0, modified=0.0, is_new=False)
    assert (taken.owed, taken.engines["a"].slices) == (0.0, SLICES)
    assert rate.leave(taken, 0.0, 0.0).owed == 1.5


def test_an_engine_does_not_ask_for_places_above_the_bound_of_those_who_wait():
    """It keeps those above only for tasks that may use them."""
    entry = Entry("host", 1, 90.0, frozenset({0, 1, 3}), wants=((2, 5),))
    assert (entry.demand(2), entry.demand(4)) == (2, 2)
    assert entry._replace(wants=((2, 2), (4, 5))).demand(4) == 4
    assert entry._replace(wants=((8, 5),)).demand(4) == 3


def test_a_rate_that_is_set_anew_does_not_owe_what_the_former_one_did():
    """Else nobody could start a task for a quarter of an hour after a rate of 0.001 was mended."""
    before = LimitState(Bounds(None, 0.001), owed=1000.0, owed_since=5.0)
    assert before.with_bounds(Bounds(None, 10.0)).owed == 0.1
    assert before.with_bounds(Bounds()).owed == 0.0
    assert before._replace(owed=0.01).with_bounds(Bounds(None, 10.0)).owed == 0.01


# --- tasks that need places of several limits -----------------------------------------------------


def test_a_turn_begins_with_the_first_task():
    """Who took a place and did not need it after all has as much of its turn as before."""
    share = LimitShare("a", "host", Timing())
    share._turn.begin(10.0)
    share._turn.note_use(11.0)
    share._turn.undo_use()
    assert not share._turn.is_over(13.5)
    share._turn.note_use(13.5)
    assert not share._turn.is_over(15.0)
    assert share._turn.is_over(15.5)


def test_a_turn_without_a_task_ends():
    """It is twice as long as one with tasks: those may wait for another limit."""
    share = LimitShare("a", "host", Timing())
    share._turn.begin(10.0)
    assert not share._turn.is_over(13.9)
    assert share._turn.is_over(14.0)


def test_an_idle_place_is_for_others_once_its_engine_lets_them():
    """Its task waits for another limit, so nobody waits for the next renewal."""
    world, (engine,) = world_of(1, waiting=1, speed=1.0)
    world.run(3)
    assert (len(engine.running), world.held(engine)) == (0, 1)
    engine.share.gives_idle = True
    world.run(1)
    assert world.held(engine) == 0
