"""`make bench-peers`: the same small flow in asyncflow and in its peers, as whole processes.

Each peer is installed into an environment of its own below `build/peers`, at the version that
stands here, and runs the flow as its documentation says for one machine, with two workers where it
has workers. A command is measured from its start to its end, with one task in the second step and
with many; what a task costs is the difference of the two, divided. All peers take turns in each
round, so that what else the machine does meets all of them. The peers do not keep the same things:
the first line of each file in `flows` says what.

The medians go to `build/peers/results.json`, and from there to `docs/benchmarks.md` and to the
table in the README.
"""

from __future__ import annotations

import ast
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from asyncflow import __version__
from benchmarks.peers.report import write_page, write_summary

FLOWS = Path(__file__).parent / "flows"
ENVIRONMENTS = Path("build/peers")
SECONDS = 600.0
ROUNDS = 5


class Peer(NamedTuple):
    """An engine, and how its flow is run."""

    requirement: str
    command: tuple[str, ...]
    """With `{python}`, `{bin}`, `{flow}` and `{width}` to be filled in."""
    kept: str
    """Where results are when a task has ended."""
    many: int = 1000
    """How many tasks tell what one costs: fewer where each takes seconds."""


SCRIPT = ("{python}", "{flow}", "{width}")
PEERS = {
    "asyncflow": Peer(
        "",
        ("{python}", "-m", "asyncflow", "run", "{flow}", "--workers", "2", "--width", "{width}"),
        "in files",
        many=10_000,
    ),
    "pool": Peer("", SCRIPT, "no", many=10_000),
    "joblib": Peer("joblib==1.6.0", SCRIPT, "no", many=200_000),
    "metaflow": Peer(
        "metaflow==2.19.39",
        (
            *("{python}", "{flow}", "--no-pylint", "run", "--width", "{width}"),
            *("--max-workers", "2", "--max-num-splits", "10000"),
        ),
        "in files",
        many=20,
    ),
    "luigi": Peer("luigi==3.8.1", SCRIPT, "in files", many=100),
    "redun": Peer(
        "redun==0.44.1",
        ("{bin}/redun", "run", "--no-cache", "{flow}", "main", "--width", "{width}"),
        "in SQLite",
        many=100,
    ),
    "prefect": Peer("prefect==3.9.1", SCRIPT, "in files, states in SQLite", many=500),
    "dagster": Peer("dagster==1.13.29", SCRIPT, "in files, events in SQLite", many=100),
    "dbos": Peer("dbos==3.4.0", SCRIPT, "in SQLite"),
    "dask": Peer("dask[distributed]==2026.8.0", SCRIPT, "in memory", many=10_000),
    "ray": Peer("ray==2.60.0", SCRIPT, "in memory", many=10_000),
}


def interpreter(name: str) -> Path:
    """The Python of an environment that has the peer."""
    requirement = PEERS[name].requirement
    if not requirement:
        return Path(sys.executable)
    folder = ENVIRONMENTS / name
    python = folder / "bin" / "python"
    stamp = folder / requirement.replace("/", "-")
    if not stamp.exists():
        print(f"installing {requirement} …", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*install, requirement], check=True)
        stamp.touch()
    return python.absolute()


def seconds(name: str, width: int, home: str) -> float:
    """How long one run takes; `home` is where the peer keeps what it keeps between runs."""
    python = interpreter(name)
    with tempfile.TemporaryDirectory() as folder:
        known = {
            "python": str(python),
            "bin": str(python.parent),
            "flow": str(FLOWS / f"{name}_flow.py"),
            "width": str(width),
        }
        command = [part.format(**known) for part in PEERS[name].command]
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
    """Environment variables that keep a peer's files in its home, and it from telling others."""
    return {
        **os.environ,
        "HOME": home,
        "USERNAME": "bench",
        "DAGSTER_HOME": home,
        "DAGSTER_DISABLE_TELEMETRY": "1",
        "METAFLOW_HOME": home,
        "PREFECT_HOME": home,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "DO_NOT_TRACK": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
    }


def version_of(name: str) -> str:
    """The version that is measured."""
    if name == "asyncflow":
        return __version__
    return PEERS[name].requirement.partition("==")[2] or platform.python_version()


def keeps(name: str) -> str:
    """What a peer keeps, as its flow's file says."""
    said = ast.get_docstring(ast.parse((FLOWS / f"{name}_flow.py").read_text())) or ""
    return said.partition(": ")[2].rstrip(".")


def processor() -> str:
    """What the kernel calls the processor."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def measure(names: list[str], rounds: int) -> list[dict[str, object]]:
    """Medians of some rounds, in each of which every peer has its turn."""
    few: defaultdict[str, list[float]] = defaultdict(list)
    many: defaultdict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as homes:
        for name in names:
            Path(homes, name).mkdir()
            seconds(name, 1, f"{homes}/{name}")  # compiles its modules, and sets up its database
        for number in range(rounds):
            for name in names:
                few[name].append(seconds(name, 1, f"{homes}/{name}"))
                many[name].append(seconds(name, PEERS[name].many, f"{homes}/{name}"))
                print(
                    f"{number + 1}/{rounds} {name:10} {few[name][-1]:.2f} s {many[name][-1]:.2f} s"
                )
    measured = []
    for name in names:
        start, whole = statistics.median(few[name]), statistics.median(many[name])
        measured.append(
            {
                "name": name,
                "version": version_of(name),
                "keeps": keeps(name),
                "kept": PEERS[name].kept,
                "four_tasks_seconds": round(start, 3),
                "many": PEERS[name].many,
                "many_seconds": round(whole, 3),
                "task_milliseconds": round((whole - start) / (PEERS[name].many - 1) * 1000, 4),
            }
        )
    return measured


def main() -> None:
    """Measure those that are named, or all, and write the page if all were measured."""
    names = sys.argv[1:] or list(PEERS)
    for name in names:
        interpreter(name)
    results = {
        "machine": f"{os.cpu_count()} cores, {processor()}, {platform.system()}",
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d"),
        "rounds": (rounds := int(os.environ.get("ROUNDS", ROUNDS))),
        "peers": measure(names, rounds),
    }
    ENVIRONMENTS.mkdir(parents=True, exist_ok=True)
    (ENVIRONMENTS / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    if len(names) == len(PEERS):
        write_page(results)
        write_summary(results)
        print("docs/benchmarks.md and the table in README.md are written")


if __name__ == "__main__":
    main()
