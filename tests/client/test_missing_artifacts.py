"""What the client says of an artifact that is not there: a similar name, or where it was lost."""

from __future__ import annotations

import pytest

from asyncflow.client import Flow, Run, Task
from asyncflow.errors import ArtifactNotFoundError, NotFoundError
from asyncflow.flow.graph import Graph
from asyncflow.flow.node import Fanout, Node
from tests.support.written_runs import RunWriter

RUN = "1795472682985927"
GRAPH = Graph(
    "Branching",
    [
        Node("start", ("left", "right"), fanout=Fanout.BRANCH),
        Node("left", ("meet",)),
        Node("right", ("meet",)),
        Node("meet", ("end",), is_join=True, joins="start"),
        Node("end"),
    ],
)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    """A run whose join has merged nothing."""
    writer = RunWriter(tmp_path_factory.mktemp("missing") / "store", "Branching", RUN, GRAPH)
    writer.run("start")
    writer.run("left", model=1)
    writer.run("right", score=2)
    writer.run("meet")
    writer.run("end", total=3)
    writer.finish()
    return Run(f"Branching/{RUN}", store=writer.store)


@pytest.mark.parametrize("name", ["model", "score"])
def test_an_artifact_that_a_join_has_lost_is_explained(run, name):
    """With the branch that had it, and what to write in the join."""
    branch = {"model": "left", "score": "right"}[name]
    told = (
        f"'{branch}' assigns it, but a join passes on .* in 'meet', call self.merge_artifacts"
        rf"\(inputs\) or assign self.{name} = inputs.{branch}.{name}, and resume from 'meet'"
    )
    with pytest.raises(ArtifactNotFoundError, match=told):
        getattr(run.data, name)
    with pytest.raises(ArtifactNotFoundError, match=told):
        _ = run["end"].task[name]


def test_a_misspelt_name_is_answered_with_the_one_that_is_meant(run):
    """Of artifacts, steps and flows."""
    with pytest.raises(ArtifactNotFoundError, match="it has total; did you mean 'total'"):
        _ = run.data.totla
    with pytest.raises(NotFoundError, match="did you mean 'right'"):
        _ = run["rigth"]
    with pytest.raises(NotFoundError, match="did you mean 'Branching'"):
        Flow("Brnching", store=run.store)


def test_a_name_that_nothing_has_is_answered_with_what_there_is(run):
    """No join is blamed for it."""
    with pytest.raises(ArtifactNotFoundError, match=r"no artifact 'x'; it has model$"):
        _ = Task(f"Branching/{RUN}/left/2", store=run.store).data.x
