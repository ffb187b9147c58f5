"""What looking back costs: the latest run of a store with a thousand runs, and one artifact of it.

Each look is the first of a fresh process, as when a notebook or a script opens a run, after
`import asyncflow.client`. Beside it the same by hand: list the folder, read the value's bytes,
unpickle them.
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from asyncflow.client import Run
from asyncflow.flow.graph import Graph
from asyncflow.flow.node import Node
from tests.support.written_runs import RunWriter

if TYPE_CHECKING:
    from collections.abc import Callable

RUNS = 1_000
TASKS = 100_000
LIMIT_MS = 20
ROUNDS = 7
GRAPH = Graph(
    "Wide",
    [
        Node("start", ("train",), foreach="items"),
        Node("train", ("join",)),
        Node("join", ("end",), is_join=True),
        Node("end"),
    ],
)
MODEL = {f"layer {number}": [0.5] * 50 for number in range(20)}

LOOK = """
import json, sys, time
from asyncflow.client import Flow
begin = time.perf_counter()
run = Flow("Wide", store=sys.argv[1]).latest_run
opened = time.perf_counter()
model = run.data.model
read = time.perf_counter()
model = Flow("Wide", store=sys.argv[1]).latest_run.data.model
again = time.perf_counter()
step = run["train"]
task = step["50000"]
assert task.index == 49998 and step.task_count == 100_000
found = time.perf_counter()
count = sum(1 for _ in step)
walked = time.perf_counter()
print(json.dumps([opened - begin, read - begin, again - read, found - again, walked - found]))
"""

BY_HAND = """
import json, os, pickle, sys, time
begin = time.perf_counter()
latest = max((name for name in os.listdir(sys.argv[1]) if name.isdecimal()), key=int)
with open(sys.argv[2], "rb") as file:
    model = pickle.loads(file.read())
print(json.dumps([time.perf_counter() - begin]))
"""


def build(store: Path) -> None:
    """A thousand runs; the latest one has a hundred thousand tasks."""
    for number in range(RUNS - 1):
        write_run(store, str(1_700_000_000_000_000 + number), 2)
    write_run(store, str(1_800_000_000_000_000), TASKS)


def write_run(store: Path, run_id: str, width: int) -> None:
    """A foreach that has succeeded."""
    run = RunWriter(store, "Wide", run_id, GRAPH)
    run.succeed(run.start("start"), fanout=width)
    for index in range(width):
        run.run("train", (index,), score=index)
    run.run("join")
    run.run("end", model=MODEL)
    run.finish()


def milliseconds(code: str, folder: str, *arguments: str) -> list[float]:
    """What a fresh process measured, the best of several for each number.

    With compiled modules at hand, as they are wherever a package has been installed.
    """
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": f"{folder}/compiled"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    measured = []
    for _ in range(ROUNDS):
        command = [sys.executable, "-c", code, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        measured.append(json.loads(done.stdout))
    return [min(column) * 1e3 for column in zip(*measured, strict=True)]


def best(call: Callable[[], object]) -> float:
    """How long one call takes at best, in milliseconds."""
    seconds = []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - begin)
    return min(seconds) * 1e3


def main() -> None:
    """Build the store, look, and print."""
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder, "store")
        build(store)
        by_hand = Path(folder, "model")
        by_hand.write_bytes(pickle.dumps(MODEL, protocol=5))
        opened, read, again, found, walked = milliseconds(LOOK, folder, str(store))
        (hand,) = milliseconds(BY_HAND, folder, str(store / "flows" / "Wide"), str(by_hand))
        record = Run("Wide/1800000000000000", store=store)._record  # noqa: SLF001 - measured apart
        masked = best(lambda: record.tasks.table().tasks_of(1))
        (store / "flows" / "Wide" / "1800000000000000" / "summary").unlink()
        replayed = best(lambda: Run("Wide/1800000000000000", store=store).task_count)
    verdict = "ok" if read < LIMIT_MS else "TOO SLOW"
    print(f"latest of {RUNS:,} runs, it has {TASKS:,} tasks: {opened:.1f} ms to open")
    print(f"… and one artifact of it: {read:.1f} ms, limit {LIMIT_MS} ms: {verdict}")
    print(f"… the same again in that process: {again:.1f} ms; by hand {hand:.1f} ms")
    print(f"… ratio {again / hand:.1f} warm, {read / hand:.1f} with the codec's import")
    print(f"one task of the wide step: {found:.1f} ms; all of them, one by one: {walked:.0f} ms")
    print(f"the ids of its tasks: {masked:.1f} ms")
    print(
        f"replaying its journal instead: {replayed:.0f} ms, {replayed / TASKS * 1e3:.1f} µs a task"
    )


if __name__ == "__main__":
    main()
