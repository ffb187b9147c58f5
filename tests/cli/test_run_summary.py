"""The summary of a run that was shown briefly: events in, lines out."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from asyncflow.cli.final_report import Program
from asyncflow.cli.run_summary import RunSummary
from asyncflow.events import RunStarted, TaskFailed, TaskRetried, TaskStarted, TaskSucceeded
from asyncflow.events.manifests import pack_manifest
from asyncflow.flow.graph import Graph
from asyncflow.flow.node import Node
from asyncflow.values import ArtifactRef, Encoding, Place

RUN: dict[str, Any] = {
    "flow": "F",
    "run_id": "17",
    "seq": 1,
    "time": datetime(2026, 11, 23, tzinfo=UTC),
}
GRAPH = Graph("F", [Node("start", ("work",)), Node("work", ("end",)), Node("end")])


def of(step: str, task_id: int, **named: Any) -> dict[str, Any]:
    """What events of a task have."""
    return {**RUN, "step": step, "task_id": str(task_id), "attempt": 0, **named}


def test_steps_are_counted_and_the_artifacts_of_the_last_one_named() -> None:
    """With how long their tasks took, and how often they failed."""
    summary = RunSummary()
    ref = ArtifactRef(Place.INLINE, Encoding.PICKLE, "int", 1, b"", "", 0, b"1")
    manifest = pack_manifest(dict.fromkeys((f"a{number:02}" for number in range(14)), ref))
    summary.count([RunStarted(**RUN, graph=GRAPH.to_data())])
    summary.count(
        [
            TaskStarted(**of("start", 1)),
            TaskSucceeded(**of("start", 1), seconds=0.25),
            TaskStarted(**of("work", 2)),
            TaskFailed(**of("work", 2), will_retry=True),
            TaskRetried(**of("work", 2)),
            TaskStarted(**of("work", 2)),
            TaskSucceeded(**of("work", 2), seconds=61.0),
            TaskStarted(**of("end", 3)),
            TaskSucceeded(**of("end", 3), manifest=manifest),
        ]
    )
    assert summary.text("F/17", Program()).splitlines() == [
        "",
        "STEP   TASKS  SECONDS",
        "start  1      250 ms",
        "work   1      1 min 1 s  1 tried again",
        "end    1      0 ms",
        f"Artifacts of end: {', '.join(f'a{number:02}' for number in range(12))}, and 2 more",
        "More:  asyncflow show F/17",
    ]


def test_a_run_that_ended_at_once_has_a_summary_without_steps() -> None:
    """For example one that was cancelled."""
    summary = RunSummary()
    summary.count([RunStarted(**RUN, graph=GRAPH.to_data())])
    assert "start" not in summary.text("F/17", Program())
