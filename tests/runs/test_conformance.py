"""The language means the same with `def` steps, with `async def` steps, and with both.

And wherever its tasks run: in worker processes of the engine, behind a socket, or in the process of
a test.
"""

from __future__ import annotations

import pytest

from asyncflow import Engine
from asyncflow.flow.graph_reader import read_graph
from asyncflow.testing import Loopback, run_flow
from tests.support.conformance import FLOWS, KINDS, load_kinds, outcome
from tests.support.remote_promises import RemotePromises


@pytest.fixture(scope="module")
def modules(tmp_path_factory):
    """The family of flows with each kind of steps, each in a file of its own."""
    return load_kinds(tmp_path_factory.mktemp("family"))


@pytest.fixture(scope="module")
async def engine(tmp_path_factory):
    """An open engine with two workers, for all tests of this file."""
    async with Engine(store=tmp_path_factory.mktemp("conformance"), workers=2) as opened:
        yield opened


@pytest.fixture(scope="module")
async def distant(tmp_path_factory):
    """An open engine whose two workers are behind a socket."""
    store = tmp_path_factory.mktemp("distant")
    async with Engine(store=store, executor=Loopback(workers=2)) as opened:
        yield opened


@pytest.fixture(scope="module")
async def expected(engine, modules):
    """What each flow comes to with `def` steps."""
    return {name: await outcome(engine, getattr(modules["def"], name)) for name in FLOWS}


@pytest.mark.parametrize("name", FLOWS)
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "def"])
async def test_a_flow_comes_to_the_same_whatever_its_steps_are(
    engine, modules, expected, name, kind
):
    """Status, failure, tasks, attempts, artifacts and output are those of its `def` steps."""
    assert await outcome(engine, getattr(modules[kind], name)) == expected[name]


@pytest.mark.parametrize("name", FLOWS)
@pytest.mark.parametrize("kind", KINDS)
async def test_a_flow_comes_to_the_same_wherever_its_tasks_run(
    distant, modules, expected, name, kind
):
    """Nothing of a run tells whether its workers were the engine's own processes."""
    assert await outcome(distant, getattr(modules[kind], name)) == expected[name]


class TestLoopback(RemotePromises):
    """All that has to hold anywhere."""


class InThisProcess:
    """In the place of an engine."""

    async def run(self, flow):
        return run_flow(flow)


@pytest.mark.parametrize("name", FLOWS)
@pytest.mark.parametrize("kind", KINDS)
async def test_a_flow_comes_to_the_same_in_the_process_of_a_test(modules, expected, name, kind):
    """Nothing of a run tells whether there were workers."""
    assert await outcome(InThisProcess(), getattr(modules[kind], name)) == expected[name]


def test_the_kinds_are_what_they_say(modules):
    """Else the tests above would compare a flow with itself."""
    graphs = {kind: read_graph(modules[kind].Nested) for kind in KINDS}
    assert not any(node.is_async for node in graphs["def"])
    assert all(node.is_async for node in graphs["async"])
    for even, odd in zip(graphs["even"], graphs["odd"], strict=True):
        assert even.is_async is not odd.is_async


async def test_the_expected_is_what_the_flows_mean(expected):
    """Some of each, so that all kinds are not wrong in the same way."""
    statuses = {name: str(status) for name, (status, *_) in expected.items()}
    assert {name for name in FLOWS if statuses[name] == "failed"} == {"Disagreeing", "Failing"}
    assert expected["Failing"][1] == ("bad", 0, "LookupError", "no luck")
    counts = {name: len(tasks) for name, (_, _, tasks) in expected.items()}
    assert (counts["Foreach"], counts["Nested"], counts["Empty"]) == (63, 25, 3)
    shown = repr(expected)
    for text in (
        "[(2, 1), (4, 4), (6, 9)], [], [(8, 16)]",
        "[10.0, None, 5.0, None]",
        "in middle",
        "[['small', 'met'], ['plain', 'met'], None, ['left', 'right', 'met']]",
        "9 [[(0, 1)], [(0, 1), (1, 2)], [(0, 1), (1, 2), (2, 3)]]",
    ):
        assert text in shown
