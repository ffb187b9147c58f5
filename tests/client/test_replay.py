"""A journal is replayed to the same state, or refused for the same reason, however it is split."""

from __future__ import annotations

from contextlib import suppress
from itertools import pairwise
from math import inf, nan

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncflow.client.replay import Replay
from asyncflow.errors import RecordError
from asyncflow.events.field_types import END_OF_TIME
from asyncflow.events.records import (
    CARDS,
    CLONED,
    FAILED,
    KINDS,
    LOGGED,
    MAX_ATTEMPT,
    MAX_INDEX,
    MAX_MEMORY,
    MAX_SEQ,
    MAX_TASK,
    RETRIED,
    STARTED,
    SUCCEEDED,
    YIELDED,
    fields_of,
)
from asyncflow.events.types import (
    STOPPED,
    RunCancelled,
    RunFailed,
    RunStarted,
    RunSucceeded,
    from_microseconds,
)
from asyncflow.flow.graph import Graph
from asyncflow.flow.node import Node
from asyncflow.store import run_times
from asyncflow.store.frames import PREFIX_BYTES
from asyncflow.store.journal import FIRST_RECORD

NOW = 1_795_472_682_985_927
GRAPH = Graph(
    "F",
    [
        Node("first", ("work",), foreach="items", is_start=True),
        Node("work", ("meet",)),
        Node("meet", ("last",), is_join=True),
        Node("last", is_end=True),
    ],
)
FIRST = RunStarted(flow="F", run_id="17", seq=1, time=from_microseconds(NOW), graph={})
EMPTY = b"\x80"


def started(head, item=""):
    """The fields of a TaskStarted after code, number and time."""
    return STARTED, [*head, 7, [1], "", item]


def succeeded(head, seconds=0.5):
    """The same of a TaskSucceeded."""
    return SUCCEEDED, [*head, EMPTY, seconds, 7, None, b"", 0, 0, "", 0.25, None, b""]


def failed(head, why="ValueError", *, again=False, caught=False):
    """The same of a TaskFailed."""
    told = [why, "no", "Traceback", again, 0.25, 7, 0, caught, EMPTY, 0.5, 1 << 20, "an item", b""]
    return FAILED, [*head, *told]


def logged(head):
    """The same of a record of output."""
    return LOGGED, [*head[:3], 0, 7, b"a line\nand half", 0]


UNUSUAL = {
    "again": lambda head: failed(head, again=True),
    "caught": lambda head: failed(head, caught=True),
    "failed": failed,
    "stopped": lambda head: failed(head, STOPPED),
    "retried": lambda head: (RETRIED, [*head, 0.5]),
    "cloned": lambda head: (
        CLONED,
        [*head, EMPTY, None, b"", "16", "3", "", [1], "an item", b""],
    ),
    "yielded": lambda head: (YIELDED, [*head, EMPTY, 0, 2, b"", b""]),
    "cards": lambda head: (CARDS, [*head, b"", 7]),
    "of a later version": lambda head: (99, ["whatever", *head]),
    "succeeds": lambda _: (RunSucceeded.code, [1.5]),
    "fails": lambda _: (RunFailed.code, ["work", "3", 0, "ValueError", "no", "", 1.5, ""]),
    "cancelled": lambda _: (RunCancelled.code, ["enough", 1.5, False]),
}
"""Records that are read one by one."""
STRANGE = [
    *(True, False, None, -1, 0, 1, 255, 300, 1 << 32, (1 << 32) - 2, (1 << 64) - 1),
    *(nan, inf, -inf, -0.5, 1e13, 2.0, "", "work", "nowhere", b"", [], [0], [-1], [1 << 40]),
    *(["x"], [True], [[1]], {}, {1: 2}),
]
STEPS = st.sampled_from(["first", "work", "work", "work", "meet", "last"])
PATHS = st.lists(st.integers(-2, 5) | st.just((1 << 32) - 1), max_size=2)
ITEMS = st.sampled_from(["", "", "'berlin'", "'ä\U0001f600'"])
WHOLE = st.tuples(
    st.just("wide"),
    STEPS,
    st.integers(1, 12),  # how many tasks
    st.integers(0, 2),  # which of them print, by their number
    st.permutations(range(12)),  # in which order they end
    st.booleans(),  # whether the ends come between the begins
)
SINGLE = st.tuples(
    st.sampled_from(["started", "succeeded", "logged", *UNUSUAL]),
    STEPS,
    st.integers(1, 40),  # the task
    st.sampled_from([0, 0, 0, 1, 2, 254, 255, 256]),  # the attempt
    PATHS,
)
CHANGES = st.tuples(
    st.integers(0, 200),  # the record
    st.sampled_from(["field", "field", "shorter", "longer", "bytes", "cut", "map"]),
    st.integers(0, 17),
    st.sampled_from(STRANGE),
)


def wide(step, first, number, printing, order, between):
    """The records of new tasks of a step, which begin and succeed."""
    heads = [[step, task, 0, [task - first]] for task in range(first, first + number)]
    ends = [heads[at] for at in order if at < number]
    for at, head in enumerate(heads):
        yield started(head, str(at) if printing else "")
        if printing and at % printing == 0:
            yield logged(head)
        if between and at % 2:
            yield succeeded(heads[at - 1], at / 3)
    for at, head in enumerate(ends):
        if not (between and (head[1] - first) % 2 == 0 and head[1] - first + 1 < number):
            yield succeeded(head, at / 7)


def records_of(acts, times):
    """The fields of a journal's records, from the first on."""
    found, task, seq = [], 1, 1
    for kind, *more in acts:
        if kind == "wide":
            step, number, printing, order, between = more
            made = list(wide(step, task, number, printing, order, between))
            task += number
        else:
            head = list(more)
            plain = {"started": started, "succeeded": succeeded, "logged": logged}
            made = [{**plain, **UNUSUAL}[kind](head)]
        for code, fields in made:
            seq += 1
            found.append([code, seq, NOW + times[seq % len(times)] * seq, *fields])
    return found


def changed(records, changes):
    """The payloads of these records, after some of them were changed."""
    payloads = [msgpack.packb(each) for each in records]
    for number, how, field, value in changes:
        at = number % len(records)
        fields = [*records[at]]
        if how == "field":
            fields[field % len(fields)] = value
        elif how == "shorter":  # an older version may have written it
            del fields[-(field % len(fields)) - 1 :]
        elif how == "longer":  # a later one
            fields += [value] * (field + 1)
        other = {"bytes": value, "map": dict(enumerate(fields))}.get(how, fields)
        payloads[at] = payloads[at][:-1] if how == "cut" else msgpack.packb(other)
    return payloads


def state_of(replay):
    """All that a replay knows."""
    attempts = replay.index.attempts
    return (
        replay.summary(),
        replay.index.table.dump(),
        attempts.dump(1),
        [*attempts.items(attempts.columns())],
        (attempts.caught, attempts.running(), attempts.changes),
        [repr(each) for each in replay.step_counts()],
        replay.outputs,
        (replay.size, replay.events),
    )


def replayed(places, payloads, bounds):
    """What a replay knows after it was given the records in parts, and why it has ended."""
    replay, why = Replay(FIRST, GRAPH), None
    try:
        for begin, end in pairwise(bounds):
            replay.handle_all(places[begin:end], payloads[begin:end])
    except RecordError as error:
        why = str(error)
    return state_of(replay), why


def places_of(payloads):
    """Where these records lie, if they follow each other."""
    places = [FIRST_RECORD]
    for payload in payloads:
        places.append(places[-1] + PREFIX_BYTES + len(payload))
    return places[:-1]


@given(
    acts=st.lists(WHOLE | SINGLE, min_size=1, max_size=12),
    times=st.lists(st.integers(-3, 20_000), min_size=1, max_size=3),
    changes=st.lists(CHANGES, max_size=2),
    cuts=st.lists(st.integers(0, 200), max_size=6),
)
def test_a_journal_is_replayed_alike_whichever_way_it_is_split(acts, times, changes, cuts):
    """One record after the other, all at once, or in any parts; what is bad is refused alike."""
    payloads = changed(records_of(acts, times), changes)
    places, size = places_of(payloads), len(payloads)
    one_by_one = replayed(places, payloads, range(size + 1))
    assert replayed(places, payloads, [0, size]) == one_by_one
    bounds = sorted({0, size, *(cut for cut in cuts if cut < size)})
    assert replayed(places, payloads, bounds) == one_by_one


@given(kind=st.sampled_from([STARTED, SUCCEEDED, LOGGED]), field=st.integers(0, 17), data=st.data())
def test_a_strange_field_among_many_records_is_refused_as_it_is_alone(kind, field, data):
    """By its place and with the same words, whatever stands there."""
    acts = [("wide", "work", 12, 1, tuple(range(12)), False)]
    records = records_of(acts, [1000])
    at = data.draw(st.sampled_from([at for at, each in enumerate(records) if each[0] == kind]))
    field %= len(records[at])
    records[at][field] = data.draw(st.sampled_from(STRANGE))
    payloads = [msgpack.packb(each) for each in records]
    places = places_of(payloads)
    found, why = replayed(places, payloads, [0, len(payloads)])
    assert (found, why) == replayed(places, payloads, range(len(payloads) + 1))
    with suppress(RecordError):
        fields_of(payloads[at])
        return
    assert why is not None
    assert found[-1][0] == places[at]


EDGES = sorted(
    {
        edge + more
        for edge in (0, MAX_ATTEMPT, MAX_INDEX, MAX_TASK, MAX_SEQ, MAX_MEMORY, END_OF_TIME)
        for more in (-1, 0, 1)
    }
)


@pytest.mark.parametrize("kind", [STARTED, SUCCEEDED, LOGGED])
def test_a_number_at_the_edge_of_what_is_allowed_is_judged_alike_among_many(kind):
    """In each field that has numbers, or lists of them."""
    acts = [("wide", "work", 6, 1, tuple(range(6)), False)]
    records = records_of(acts, [1000])
    at = [number for number, each in enumerate(records) if each[0] == kind][1]
    for field, there in enumerate(records[at]):
        for edge in EDGES if field and not isinstance(there, str | bytes) else ():
            fields = [*records[at]]
            fields[field] = [edge] if isinstance(there, list) else edge
            payloads = [msgpack.packb(each) for each in (*records[:at], fields, *records[at + 1 :])]
            places, size = places_of(payloads), len(payloads)
            one_by_one = replayed(places, payloads, range(size + 1))
            assert replayed(places, payloads, [0, size]) == one_by_one, (field, edge)


def head_of(task, attempt=0, step="work"):
    """The fields that name an attempt of a task."""
    return [step, task, attempt, [task]]


ODD = {
    "an end before its begin": [succeeded(head_of(30)), started(head_of(30))],
    "begun twice": [started(head_of(30)), started(head_of(30))],
    "ended twice": [started(head_of(30)), succeeded(head_of(30), 1), succeeded(head_of(30), 2)],
    "ended without a begin": [succeeded(head_of(30))],
    "ended in another step": [started(head_of(30)), succeeded(head_of(30, step="meet"))],
    "ended in another attempt": [started(head_of(30)), succeeded(head_of(30, 1))],
    "begun in a later attempt": [started(head_of(30, 2)), succeeded(head_of(30, 2))],
    "begun in an attempt above the limit": [started(head_of(30, 300))],
    "another attempt above the limit": [started(head_of(30, 300)), succeeded(head_of(30, 301))],
    "a task that there cannot be": [started(head_of(1 << 21))],
    "an end of a task that there cannot be": [succeeded(head_of(1 << 21))],
    "a step that there is not": [started(head_of(30, step="nowhere"))],
    "an end of a step that there is not": [succeeded(head_of(30, step="nowhere"))],
    "the last step's task": [
        started(head_of(30, step="last")),
        succeeded(head_of(30, step="last")),
    ],
    "output after the end": [started(head_of(30)), succeeded(head_of(30)), logged(head_of(30))],
    "a text that is no UTF-8": [started(head_of(30), "\udcff")],
    "an index above the limit": [started(["work", 30, 0, [(1 << 32) - 1]])],
    "an item that is long": [started(head_of(30), "x" * 100_000)],
    "an import that it has waited for": [started(head_of(30)), succeeded(head_of(30), 1e-6)],
    "a duration that is not a number": [started(head_of(30)), succeeded(head_of(30), nan)],
    "a duration below zero": [started(head_of(30)), succeeded(head_of(30), -0.5)],
    "a duration without end": [started(head_of(30)), succeeded(head_of(30), inf)],
    "a path that is not one": [started(["work", 30, 0, [True]])],
    "a begin last": [started(head_of(30))],
    "an end last": [started(head_of(30)), started(head_of(31)), succeeded(head_of(30), 0)],
}


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
def test_odd_records_among_many_come_to_the_same(odd, apart, monkeypatch):
    """As when they are read one by one, also if a batch ends between them."""
    monkeypatch.setattr(run_times, "_MOST_TEXT_BYTES", 50_000)
    before = [
        each for task in range(1, 9) for each in (started(head_of(task)), succeeded(head_of(task)))
    ]
    after = [
        each
        for task in range(9, 17)
        for each in (started(head_of(task), "item"), logged(head_of(task)))
    ]
    made = [*before[:-1], *odd[:1], before[-1], *after, *odd[1:]]
    records = [
        [code, seq, NOW + seq * 30_000, *fields] for seq, (code, fields) in enumerate(made, 2)
    ]
    payloads = [msgpack.packb(each, unicode_errors="surrogateescape") for each in records]
    places, size = places_of(payloads), len(payloads)
    bounds = [0, len(before), size] if apart else [0, size]
    one_by_one = replayed(places, payloads, range(size + 1))
    assert replayed(places, payloads, bounds) == one_by_one


def test_usual_records_are_replayed_without_a_call_for_each(monkeypatch):
    """The bulk of a wide run, with tasks that print, never comes to what is done for one record."""
    single = []

    def handle(_, at, payload):
        single.append((at, payload))

    monkeypatch.setattr(Replay, "_handle", handle)
    acts = [("wide", "work", 12, 1, tuple(range(12)), True)] * 40
    payloads = changed(records_of(acts, [1000]), [])
    assert replayed(places_of(payloads), payloads, [0, len(payloads)])[1] is None
    assert not single


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_map_is_no_record(kind):
    """Not even one with the right keys, of the right types, in the right order."""
    with pytest.raises(RecordError, match="does not begin as a record does"):
        fields_of(msgpack.packb({0: kind, **dict.fromkeys(range(1, 18), 1)}))


def test_a_map_is_no_record_after_one_with_its_types():
    """The types of its keys pass for those of the fields."""
    assert fields_of(msgpack.packb([LOGGED, 1, 1, "x", 1, 0, 0, 0, b"", 0]))
    keys = {0: LOGGED, 1: 1, 2: 1, "x": 0, 4: 1, 5: 0, 6: 0, 8: b"data", b"k": 0, 9: 0}
    with pytest.raises(RecordError, match="does not begin as a record does"):
        fields_of(msgpack.packb(keys))
