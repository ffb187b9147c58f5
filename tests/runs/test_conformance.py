"""The language means the same with `def` steps, with `async def` steps, and with both.

And wherever its tasks run: in worker processes of the engine, or behind a socket.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from asyncflow import Engine
from asyncflow.errors import RunFailedError
from asyncflow.flow.graph_reader import read_graph
from asyncflow.flow.loader import load_file
from asyncflow.testing import Loopback
from asyncflow.values import Failure

SOURCE = (Path(__file__).parents[1] / "support" / "language_flows.py").read_text()
FLOWS = re.findall(r"^class (\w+)", SOURCE, flags=re.MULTILINE)
KINDS = {
    "def": lambda number: False,
    "async": lambda number: True,
    "even": lambda number: number % 2 == 0,
    "odd": lambda number: number % 2 == 1,
}


def made_async(source, chosen):
    """The source with those steps `async def` whose number, in the order of the text, is chosen."""
    numbers = iter(range(source.count("@step")))

    def replaced(match):
        if not chosen(next(numbers)):
            return match[0]
        return f"{match[1]}async {match[2]}\n        await asyncio.sleep(0)\n"

    return re.sub(r"(@step\n +)(def .*:)\n", replaced, source)


@pytest.fixture(scope="module")
def modules(tmp_path_factory):
    """The family of flows with each kind of steps, each in a file of its own."""
    folder = tmp_path_factory.mktemp("family")
    made = {}
    for kind, chosen in KINDS.items():
        path = folder / f"family_{kind}.py"
        path.write_text(made_async(SOURCE, chosen))
        made[kind] = load_file(path)
    return made


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


async def outcome(engine, flow):
    """All that can be seen of a run, but for what differs from run to run by its nature."""
    try:
        run, failure = await engine.run(flow), None
    except RunFailedError as error:
        run, failure = error.run, error.failure
    tasks = [
        (
            step.id,
            task.status,
            task.attempt,
            sorted(map(seen, task)),
            [(each.stdout, without_paths(each.stderr)) for each in task.attempts()],
        )
        for step in run
        for task in step
    ]
    told = failure and (failure.step, failure.attempt, failure.type, failure.message)
    return run.status, told, sorted(tasks, key=repr)


def seen(artifact):
    """An artifact; a failure tells of task and file, which is not to be compared."""
    value = artifact.data
    if isinstance(value, Failure):
        return artifact.id, value.step, value.type, value.message
    return artifact.id, artifact.type_name, artifact.size, repr(value)


def without_paths(text):
    """A traceback without what tells of the file that it comes from."""
    return re.sub(r'File ".*?", line \d+', "File", text)


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


def test_the_kinds_are_what_they_say(modules):
    """Else the tests above would compare a flow with itself."""
    graphs = {kind: read_graph(modules[kind].Nested) for kind in KINDS}
    assert not any(node.is_async for node in graphs["def"])
    assert all(node.is_async for node in graphs["async"])
    for even, odd in zip(graphs["even"], graphs["odd"], strict=True):
        assert even.is_async is not odd.is_async


def test_the_expected_is_what_the_flows_mean(expected):
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
