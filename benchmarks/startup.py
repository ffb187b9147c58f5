"""`asyncflow run` of a four-step flow as a whole process, beside the imports that it needs."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

FLOW = Path(__file__).parent.parent / "examples" / "artifact_flow.py"
IMPORTS = "import anyio, msgpack, cloudpickle, aiofiles, structlog, click"
REQUIRED = 1.5


def seconds(command: list[str], cache: str) -> float:
    """How long a command takes from its start to its end, once its modules are compiled."""
    environ = {**os.environ, "PYTHONPYCACHEPREFIX": cache}
    environ.pop("PYTHONDONTWRITEBYTECODE", None)
    began = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env=environ)
    return time.perf_counter() - began


def main(rounds: int = 15) -> None:
    """Measure both in turn, and print the ratio of the medians."""
    with tempfile.TemporaryDirectory() as store, tempfile.TemporaryDirectory() as cache:
        commands = {
            "imports": [sys.executable, "-c", IMPORTS],
            "run": [sys.executable, "-m", "asyncflow", "run", str(FLOW), "--store", store],
            "import asyncflow": [sys.executable, "-c", "import asyncflow"],
        }
        times: dict[str, list[float]] = {name: [] for name in commands}
        for command in commands.values():
            seconds(command, cache)
        for _ in range(rounds):
            for name, command in commands.items():
                times[name].append(seconds(command, cache))
    medians = {name: statistics.median(values) for name, values in times.items()}
    base = medians["imports"]
    print(f"`{IMPORTS}`: {base * 1000:.0f} ms")
    print(f"asyncflow run of four steps: {medians['run'] * 1000:.0f} ms, ", end="")
    print(f"ratio {medians['run'] / base:.2f} (at most {REQUIRED})")
    own = medians["import asyncflow"]
    print(f"import asyncflow: {own * 1000:.0f} ms, ratio {own / base:.2f} (at most 2)")


if __name__ == "__main__":
    main()
