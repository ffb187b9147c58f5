"""Where the steps of a graph are drawn, and what is drawn of a timeline."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncflow.client.attempt_times import Busy
from asyncflow.flow.graph import Graph
from asyncflow.flow.node import Node
from asyncflow.page.answers import to_bytes
from asyncflow.page.graph_layout import _apart, graph_data
from asyncflow.page.opened_runs import OpenedRuns
from asyncflow.page.run_overview import overview
from asyncflow.page.timeline import TimelineChoice, _highest, timeline
from tests.support.page_stores import GRAPH
from tests.support.written_runs import RunWriter

LOOP = Graph(
    "Loop",
    [
        Node("start", ("work",)),
        Node("work", ("check",)),
        Node("check", ("work", "end"), condition="again", cases=((True, "work"), (False, "end"))),
        Node("end"),
    ],
)


@st.composite
def flows(draw, depth=2):
    """A graph of steps in a row, with splits of splits between them."""
    nodes, numbers = [], itertools.count()

    def row(first, after, depth):
        """Steps from `first` on, of which the last one leads to `after`; the first's name."""
        name = first
        for _ in range(draw(st.integers(0, 2))):
            following = f"s{next(numbers)}"
            if depth and draw(st.booleans()):
                width = draw(st.integers(2, 4))
                heads = [f"s{next(numbers)}" for _ in range(width)]
                nodes.append(Node(name, tuple(heads)))
                for head in heads:
                    row(head, following, depth - 1)
                name = following
                joins.add(name)
            else:
                nodes.append(Node(name, (following,)))
                name = following
        nodes.append(Node(name, (after,)))

    joins = set()
    row("start", "end", depth)
    marked = [
        Node(each.name, each.next, is_join=each.name in joins) for each in [*nodes, Node("end")]
    ]
    return Graph("Drawn", marked)


@given(flows())
def test_no_two_steps_are_drawn_in_one_place(graph):
    """And each stands to the right of all that lead to it."""
    data = graph_data(graph)
    places = {node["step"]: (node["x"], node["y"]) for node in data["nodes"]}
    by_column: dict[int, list[float]] = {}
    for x, y in places.values():
        by_column.setdefault(x, []).append(y)
    for rows in by_column.values():
        assert all(b - a >= 0.98 for a, b in itertools.pairwise(sorted(rows)))
    for edge in data["edges"]:
        assert places[edge["from"]][0] < places[edge["to"]][0]
        assert tuple(edge["points"][0]) == places[edge["from"]]
        assert tuple(edge["points"][-1]) == places[edge["to"]]
    assert data["width"] == 1 + max(x for x, _ in places.values())


@given(flows())
def test_no_edge_passes_through_a_step(graph):
    """An edge over several columns has a row of its own in each."""
    data = graph_data(graph)
    places = {(node["x"], node["y"]) for node in data["nodes"]}
    for edge in data["edges"]:
        assert not {tuple(point) for point in edge["points"][1:-1]} & places


def test_what_leads_back_is_marked():
    """It does not count for the columns, and its case stands at it."""
    data = graph_data(LOOP)
    assert {node["step"]: node["x"] for node in data["nodes"]} == {
        "start": 0,
        "work": 1,
        "check": 2,
        "end": 3,
    }
    edges = {(edge["from"], edge["to"]): edge for edge in data["edges"]}
    assert edges["check", "work"]["back"]
    assert edges["check", "work"]["label"] == "True"
    assert not edges["check", "end"]["back"]


@pytest.mark.parametrize("wide", [False, True])
def test_a_graph_of_many_steps_fits_into_an_answer(tmp_path, wide):
    """Whatever stands in it: what is left out is said."""
    names = [f"a_step_with_a_long_name_{number}" for number in range(1200)]
    doc = "What it does, at length. " * 200
    if wide:
        inner = [Node(name, ("join",), doc=doc) for name in names]
        nodes = [Node("start", tuple(names)), *inner, Node("join", ("end",), is_join=True)]
    else:
        inner = [Node(a, (b,), doc=doc) for a, b in itertools.pairwise([*names, "end"])]
        nodes = [Node("start", (names[0],)), *inner]
    graph = Graph("Long", [*nodes, Node("end")])
    run = RunWriter(tmp_path, "Long", "1795472683000009", graph)
    run.run("start")
    run.finish()
    found = overview(OpenedRuns(str(tmp_path)).record("Long", "1795472683000009"))
    assert len(to_bytes(found)) <= 200_000
    assert found["steps"][0]["begun"] == 1
    assert found["problem"] is None
    assert found["graph"] is not None or found["steps_cut"] > 0


@given(st.lists(st.floats(-50, 50)))
def test_rows_are_apart_and_in_their_order(wanted):
    """However near to each other they would like to be."""
    found = _apart(wanted)
    assert len(found) == len(wanted)
    assert all(b - a >= 1 - 1e-6 for a, b in itertools.pairwise(found))


# --- the timeline -------------------------------------------------------------------------------

spans = st.lists(st.tuples(st.integers(0, 300), st.integers(1, 60)), max_size=30)


@given(spans, st.integers(1, 40))
def test_a_column_has_the_highest_number_that_ran_in_it(given_spans, count):
    """Compared with counting each millisecond."""
    busy = Busy([a for a, _ in given_spans], [a + length for a, length in given_spans])
    edges = [360 * number // count for number in range(count + 1)]
    bounds = list(itertools.pairwise(edges))
    running = [sum(a <= at < a + length for a, length in given_spans) for at in range(361)]
    wanted = [max(running[a:b], default=running[a]) for a, b in bounds]
    found = [0] * count
    for first, length, number in _highest(busy, bounds):
        found[first : first + length] = [number] * length
    assert found == wanted


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    """A run of 2,500 tasks, one after the other, with a long pause and a failure."""
    store = tmp_path_factory.mktemp("timeline") / "store"
    run = RunWriter(store, "Made", "1795472683000009", GRAPH)
    run.succeed(run.start("start"), fanout=2500)
    for index in range(2500):
        if index == 1000:
            run.tick(3600)
        task = run.start("work", (index,))
        if index == 2000:
            run.fail(task, will_retry=True)
            run.start("work", task=task)
        run.succeed(task)
    run.run("join")
    run.run("end")
    run.finish()
    return OpenedRuns(str(store)).record("Made", "1795472683000009")


def test_many_attempts_come_as_numbers(record):
    """For each step; with the failures where they were."""
    found = timeline(record, TimelineChoice(), 0)
    assert (found["attempts"], found["bars"]) == (2504, None)
    work = next(each for each in found["columns"]["steps"] if each["step"] == "work")
    assert sum(number for _, number in work["failed"]) == 1
    assert max(number for _, _, number in work["running"]) == 1


def test_a_part_of_it_comes_as_bars(record):
    """As soon as there are 2,000 or fewer."""
    found = timeline(record, TimelineChoice(begin=0, end=100_000), 0)
    assert found["columns"] is None
    assert 0 < len(found["bars"]) <= 2000
    assert all(bar[3] <= 100_000 for bar in found["bars"])
    only = timeline(record, TimelineChoice(steps=["join"]), 0)
    assert [bar[1] for bar in only["bars"]] == [found["steps"].index("join")]


def test_idle_time_is_cut_out(record):
    """The pieces that are left fill the width, and nothing ran between them."""
    found = timeline(record, TimelineChoice(cut_idle=True), 0)
    pieces = found["pieces"]
    assert len(pieces) == 2
    assert pieces[1][0] - pieces[0][1] >= 3_600_000
    assert (pieces[0][2], pieces[-1][3]) == (0.0, 1.0)
    assert pieces[0][3] == pieces[1][2]


def test_the_last_attempts_are_those_of_the_tasks(record):
    """One for each."""
    assert timeline(record, TimelineChoice(last_only=True), 0)["attempts"] == 2503
