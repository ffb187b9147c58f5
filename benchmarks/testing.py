"""What a test of a flow waits for: its first run in the test's own process, and further ones.

Each is measured beside the same flow on worker processes, which is what a test would do without
`in_process`. The first is that of a fresh process, with the imports. CPU time does not depend on
what else the machine does.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from asyncflow.testing import run_flow, run_step
from benchmarks.flows import NoOps

if TYPE_CHECKING:
    from collections.abc import Callable

WIDTH = 3  # six tasks
FIRST_SECONDS, FURTHER_SECONDS = 0.3, 0.02  # what is promised
FIRST = """if True:
    import json, time
    from benchmarks.flows import NoOps
    began, cpu_began = time.perf_counter(), time.process_time()
    from asyncflow.testing import run_flow
    run_flow(NoOps, width=3)
    print(json.dumps([time.perf_counter() - began, time.process_time() - cpu_began]))
"""


def first(rounds: int) -> None:
    """Print how long the first run of a process takes."""
    command = [sys.executable, "-c", FIRST]
    told = [subprocess.run(command, check=True, capture_output=True).stdout for _ in range(rounds)]
    times = [json.loads(each) for each in told]
    wall, cpu = (min(each[at] for each in times) for at in (0, 1))
    print(f"the first run_flow: {wall * 1e3:.0f} ms, {cpu * 1e3:.0f} ms of CPU time", end="")
    print(f" (at most {FIRST_SECONDS * 1e3:.0f})")


def further(name: str, call: Callable[[], object], rounds: int) -> float:
    """Print how long further calls take; return the median, in seconds."""
    call()
    walls, cpus = [], []
    for _ in range(rounds):
        began, cpu_began = time.perf_counter(), time.process_time()
        call()
        walls.append(time.perf_counter() - began)
        cpus.append(time.process_time() - cpu_began)
    print(
        f"{name}: at least {min(walls) * 1e3:.1f} ms, median {statistics.median(walls) * 1e3:.1f}"
    )
    print(f"    at least {min(cpus) * 1e3:.1f} ms of this process's CPU time")
    return statistics.median(walls)


def main(rounds: int = 30) -> None:
    """Measure all of them."""
    first(5)
    promised = f"(at most {FURTHER_SECONDS * 1e3:.0f})"
    here = further(f"run_flow {promised}", lambda: run_flow(NoOps, width=WIDTH), rounds)
    workers = further(
        "run_flow on workers", lambda: run_flow(NoOps, in_process=False, width=WIDTH), 5
    )
    print(f"ratio {here / workers:.3f}")
    further("run_step", lambda: run_step(NoOps, "work", input=1), rounds)


if __name__ == "__main__":
    main()
