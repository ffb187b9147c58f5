"""What a run that goes on waits for: limits, retries, workers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from asyncflow.client.limit_data import limits_of
from asyncflow.page.opened_runs import run_of
from asyncflow.page.step_rows import step_rows
from asyncflow.values import Status

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncflow.client.run_files import RunRecord

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
    ready = {step: _ready(row) for step, row in steps.items()}
    if not any(row["begun"] for row in steps.values()):
        yield _wait("start", record.journal.graph.start, "", "No task of the run has begun yet.")
        return
    limited = set()
    for limit in limits_of(run_of(record)):
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
            text = f"{row['waiting']} tasks of {step} have failed, and wait to be tried again."
            yield _wait("retry", step, "", text)
    waiting = {step: count for step, count in ready.items() if count and step not in limited}
    running = sum(row["running"] for row in steps.values())
    if waiting and running:
        step = max(waiting, key=waiting.__getitem__)
        needs = record.journal.graph[step].options.get("resources")
        kind = "resources" if needs else "workers"
        what = "room on the machine" if needs else "a worker"
        text = (
            f"{waiting[step]} tasks of {step} are ready and wait for {what}; {running} tasks run."
        )
        yield _wait(kind, step, "", text)


def _ready(row: dict[str, Any]) -> int:
    expected, begun = row["expected"], row["begun"]
    return int(expected or begun) - int(begun)


def _wait(kind: str, step: str, name: str, text: str) -> dict[str, Any]:
    return {"kind": kind, "step": step, "name": name, "text": text}
