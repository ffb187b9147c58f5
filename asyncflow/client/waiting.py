"""What a run that goes on waits for: limits, retries, workers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from asyncflow.client.limit_data import limits_of
from asyncflow.client.objects import Run
from asyncflow.client.step_rows import step_rows
from asyncflow.client.words import how_many
from asyncflow.flow.node import Fanout
from asyncflow.values import Status

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from asyncflow.client.run_files import RunRecord
    from asyncflow.flow.graph import Graph

_MOST: Final = 50


def waits_of(record: RunRecord) -> list[dict[str, Any]]:
    """Why nothing or little goes on in a run; empty for one that has ended.

    Raises:
        JournalError: It is damaged.
    """
    if record.status() is not Status.RUNNING:
        return []
    return [*_waits(record)][:_MOST]


def _waits(record: RunRecord) -> Iterator[dict[str, Any]]:
    steps = {row["step"]: row for row in step_rows(record)}
    graph = record.journal.graph
    ready = {step: _ready(graph, step, steps) for step in steps}
    if not any(row["begun"] for row in steps.values()):
        yield _wait("start", graph.start, "", "No task of the run has begun yet.")
        return
    limited = set()
    for limit in limits_of(Run._in(record)):  # noqa: SLF001 - parts of one package
        step, name = limit["step"], limit["name"]
        at_once, in_use = limit["at_once"], limit["in_use"]
        if not ready.get(step) or steps[step]["running"] == ready[step] + steps[step]["running"]:
            continue
        if at_once is not None and in_use >= at_once:
            limited.add(step)
            text = f"Tasks of {step} wait for the limit {name}: {in_use} of {at_once} are in use."
            yield _wait("limit", step, name, text)
        elif limit["per_second"] is not None:
            limited.add(step)
            rate = f"{limit['per_second']:g} a second"
            text = f"Tasks of {step} begin as the limit {name} lets them: {rate}."
            yield _wait("rate", step, name, text)
    for step, row in steps.items():
        if row["waiting"]:
            tasks = how_many(row["waiting"], "task")
            text = f"{tasks} of {step} failed and will be tried again."
            yield _wait("retry", step, "", text)
    waiting = {step: count for step, count in ready.items() if count and step not in limited}
    running = sum(row["running"] for row in steps.values())
    if waiting:
        step = max(waiting, key=waiting.__getitem__)
        needs = graph[step].options.get("resources")
        kind = "resources" if needs else "workers"
        what = "room on the machine" if needs else "a worker"
        one = waiting[step] == 1
        now = (
            f"{how_many(running, 'task')} {'runs' if running == 1 else 'run'}"
            if running
            else "no task of this run runs"
        )
        text = (
            f"{how_many(waiting[step], 'task')} of {step} {'is' if one else 'are'} ready and "
            f"{'waits' if one else 'wait'} for {what}; {now}."
        )
        yield _wait(kind, step, "", text)


def _ready(graph: Graph, step: str, rows: Mapping[str, dict[str, Any]]) -> int:
    """How many tasks of a step could begin, as far as that is known: all before them are done."""
    nodes = [node for node in graph if step in node.next]
    before, known = [rows[node.name] for node in nodes], rows[step]["expected"]
    if known is None or any(node.fanout is Fanout.CONDITION for node in nodes):
        return 0
    if graph[step].is_join:
        ready = known if all(row["succeeded"] == row["expected"] for row in before) else 0
    elif nodes and all(node.fanout is not Fanout.FOREACH for node in nodes):
        ready = sum(row["succeeded"] for row in before)
    else:  # what follows a foreach that has not ended is not known
        ready = known
    return max(int(ready) - int(rows[step]["begun"]), 0)


def _wait(kind: str, step: str, name: str, text: str) -> dict[str, Any]:
    return {"kind": kind, "step": step, "name": name, "text": text}
