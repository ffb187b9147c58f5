"""What looking for runs costs in a store of many: the latest, the newest 20, the failed ones.

Each look is the first of a fresh process, after `import asyncflow.client`. Beside it, what the
folder alone costs: list the names, and sort them.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from asyncflow.flow.graph import Graph
from asyncflow.flow.node import Node
from asyncflow.store.layout import Layout
from asyncflow.store.local_store import LocalRun
from asyncflow.store.run_index import SUMMARY, Summary
from asyncflow.values import Status
from benchmarks.client import ROUNDS, milliseconds
from tests.support.written_runs import RunWriter

RUNS = 100_000
_FAILED_EVERY = 1_000
_GRAPH = Graph("Many", [Node("start", ("end",)), Node("end")])
_FIRST_ID = 1_700_000_000_000_000

LOOK = """
import json, sys, time
from itertools import islice
from asyncflow.client import Flow
def timed(look):
    begin = time.perf_counter()
    found = look()
    return found, time.perf_counter() - begin
latest, first = timed(lambda: Flow("Many", store=sys.argv[1]).latest_run)
newest, few = timed(lambda: list(islice(Flow("Many", store=sys.argv[1]).runs(), 20)))
assert latest == newest[0] and len(newest) == 20
print(json.dumps([first, few]))
"""

BY_HAND = """
import json, os, sys, time
begin = time.perf_counter()
names = sorted(os.listdir(sys.argv[1]), reverse=True)
print(json.dumps([time.perf_counter() - begin]))
"""


def build(store: Path, runs: int) -> None:
    """Short runs, a few of which have failed; all but the first two are copies of these."""
    layout = Layout.open(store, create=True)
    began = time.perf_counter()
    failed, succeeded = (_written(store, _FIRST_ID + number) for number in range(2))
    for number in range(2, runs):
        run_id = str(_FIRST_ID + number)
        summary, files = succeeded if number % _FAILED_EVERY else failed
        folder = layout.run_dir("Many", run_id)
        folder.mkdir()
        for name, data in {**files, SUMMARY: summary._replace(run_id=run_id).dump()}.items():
            descriptor = os.open(folder / name, os.O_WRONLY | os.O_CREAT, 0o644)
            os.write(descriptor, data)
            os.close(descriptor)
    layout.create_run("Many")  # one is just being started, which notes the newest
    print(f"{runs:,} runs written in {time.perf_counter() - began:.0f} s")


def _written(store: Path, number: int) -> tuple[Summary, dict[str, bytes]]:
    """A run as an engine writes it: its summary, and its other files."""
    run = RunWriter(store, "Many", str(number), _GRAPH)
    run.run("start")
    if number == _FIRST_ID:
        run.fail(run.start("end"))
        run.finish(Status.FAILED)
    else:
        run.run("end")
        run.finish()
    files = {file.name: file.read_bytes() for file in run.run_dir.iterdir() if file.is_file()}
    del files[SUMMARY]
    summary = Summary.read(LocalRun.at(run.run_dir))
    assert summary is not None  # noqa: S101 - it has just been written
    return summary, files


class Command(NamedTuple):
    """How long a command takes at best, as a whole process; and its output."""

    seconds: float
    cpu_seconds: float
    output: str

    def __str__(self) -> str:
        return f"{self.seconds:.2f} s, {self.cpu_seconds:.2f} s of CPU"


def run_command(store: Path, *arguments: str, rounds: int = 1) -> Command:
    """Run a command so often."""
    command = [sys.executable, "-m", "asyncflow", *arguments, "--store", str(store)]
    seconds, cpu = [], []
    for _ in range(rounds):
        begin, before = time.perf_counter(), _cpu_of_children()
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        seconds.append(time.perf_counter() - begin)
        cpu.append(_cpu_of_children() - before)
    return Command(min(seconds), min(cpu), done.stdout)


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Build the store, look, and print."""
    runs = int(os.environ.get("RUNS", RUNS))
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder, "store")
        build(store, runs)
        failed = len(range(0, runs, _FAILED_EVERY))
        first, few = milliseconds(LOOK, folder, str(store))
        (names,) = milliseconds(BY_HAND, folder, str(store / "flows" / "Many"))
        listed = run_command(store, "runs", rounds=ROUNDS)
        print(f"latest_run of {runs:,}: {first:.1f} ms; the names alone, listed: {names:.1f} ms")
        print(f"the newest 20 of Flow.runs: {few:.1f} ms; `asyncflow runs`: {listed}")
        # Each of these reads something of every run: once is enough.
        chosen = run_command(store, "runs", "--status", "failed", "--limit", "0")
        assert chosen.output.count(" failed ") == failed  # noqa: S101 - a wrong answer is worth nothing
        print(f"`runs --status failed`: {chosen}, {chosen.cpu_seconds / runs * 1e6:.0f} µs a run")
        for name in ("verify", "gc"):
            done = run_command(store, name)
            print(f"`{name}`: {done}, {done.cpu_seconds / runs * 1e6:.0f} µs a run")


if __name__ == "__main__":
    main()
