"""`make bench-others`: the same small flow in asyncflow and in other engines, as whole processes.

Each engine is installed into an environment of its own below `build/others`, at the version that
stands here, and runs the flow as its documentation says for one machine, with two workers where it
has workers. What is measured is a command from its start to its end, with one task in the second
step and with many; what a task costs is the difference of the two, divided. The engines do not
keep the same things: the first line of each file in `flows` says what.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

FLOWS = Path(__file__).parent / "flows"
ENVIRONMENTS = Path("build/others")
SECONDS = 600.0


class Contestant(NamedTuple):
    """An engine, and how its flow is run."""

    requirement: str
    command: tuple[str, ...]
    """With `{python}`, `{bin}`, `{flow}` and `{width}` to be filled in."""
    many: int = 1000
    """How many tasks tell what one costs: fewer where each takes seconds."""


SCRIPT = ("{python}", "{flow}", "{width}")
CONTESTANTS = {
    "asyncflow": Contestant(
        "", ("{python}", "-m", "asyncflow", "run", "{flow}", "--workers", "2", "--width", "{width}")
    ),
    "metaflow": Contestant(
        "metaflow==2.19.39",
        (
            *("{python}", "{flow}", "--no-pylint", "run", "--width", "{width}"),
            *("--max-workers", "2", "--max-num-splits", "10000"),
        ),
        many=20,
    ),
    "luigi": Contestant("luigi==3.8.1", SCRIPT, many=100),
    "redun": Contestant(
        "redun==0.44.1",
        ("{bin}/redun", "run", "--no-cache", "{flow}", "main", "--width", "{width}"),
        many=100,
    ),
    "prefect": Contestant("prefect==3.9.1", SCRIPT, many=1000),
    "dagster": Contestant("dagster==1.13.29", SCRIPT, many=10),
    "dbos": Contestant("dbos==3.4.0", SCRIPT),
    "dask": Contestant("dask[distributed]==2026.8.0", SCRIPT),
    "ray": Contestant("ray==2.60.0", SCRIPT),
}


class Measured(NamedTuple):
    """What came of it, in seconds."""

    whole: float
    """A whole process, with four tasks."""
    task: float
    """What one more task costs."""


def interpreter(name: str, contestant: Contestant) -> Path:
    """The Python of an environment that has the engine."""
    if not contestant.requirement:
        return Path(sys.executable)
    folder = ENVIRONMENTS / name
    python = folder / "bin" / "python"
    stamp = folder / contestant.requirement.replace("/", "-")
    if not stamp.exists():
        print(f"installing {contestant.requirement} …", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*install, contestant.requirement], check=True)
        stamp.touch()
    return python.absolute()


def seconds(name: str, python: Path, width: int, home: str) -> float:
    """How long one run takes; `home` is where the engine keeps what it keeps between runs."""
    with tempfile.TemporaryDirectory() as folder:
        known = {
            "python": str(python),
            "bin": str(python.parent),
            "flow": str(FLOWS / f"{name}_flow.py"),
            "width": str(width),
        }
        command = [part.format(**known) for part in CONTESTANTS[name].command]
        began = time.perf_counter()
        done = subprocess.run(
            command,
            cwd=home,
            env={**environment(home), "BENCH_FOLDER": folder},
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        taken = time.perf_counter() - began
    total = f"total {sum(item**2 for item in range(width))}"
    if done.returncode or total not in done.stdout + done.stderr:
        message = f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        raise SystemExit(message)
    return taken


def environment(home: str) -> dict[str, str]:
    """Environment variables that keep an engine's files in its home, and it from telling others."""
    return {
        **os.environ,
        "HOME": home,
        "USERNAME": "bench",
        "DAGSTER_HOME": home,
        "DAGSTER_DISABLE_TELEMETRY": "1",
        "METAFLOW_HOME": home,
        "PREFECT_HOME": home,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
    }


def measure(name: str, rounds: int) -> Measured:
    """Medians of some rounds."""
    contestant = CONTESTANTS[name]
    python = interpreter(name, contestant)
    with tempfile.TemporaryDirectory() as home:

        def median(width: int) -> float:
            return statistics.median(seconds(name, python, width, home) for _ in range(rounds))

        seconds(name, python, 1, home)  # compiles its modules, and sets up its database
        few, many = median(1), median(contestant.many)
    return Measured(few, (many - few) / (contestant.many - 1))


def main(rounds: int = 3) -> None:
    """Measure those that are named, or all; each beside asyncflow, measured just before it."""
    names = [name for name in CONTESTANTS if name != "asyncflow"]
    print(f"{'':12} {'four tasks':>10}  ratio {'one more task':>15}  ratio")
    for name in sys.argv[1:] or names:
        ours, theirs = measure("asyncflow", rounds), measure(name, rounds)
        for called, told in (("asyncflow", ours), (name, theirs)):
            print(
                f"{called:12} {told.whole:8.2f} s {told.whole / ours.whole:6.1f} "
                f"{told.task * 1000:12.2f} ms {told.task / ours.task:6.1f}"
            )


if __name__ == "__main__":
    main()
