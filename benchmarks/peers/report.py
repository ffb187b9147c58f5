"""Writes `docs/benchmarks.md`, its pictures, and the table in the README from what was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure

README: Final = Path("README.md")
DOCS: Final = Path("docs")
PICTURES: Final = DOCS / "pictures"
_CALLED: Final = {
    "asyncflow": "asyncflow",
    "pool": "ProcessPoolExecutor",
    "joblib": "joblib",
    "metaflow": "Metaflow",
    "luigi": "Luigi",
    "redun": "redun",
    "prefect": "Prefect",
    "dagster": "Dagster",
    "dbos": "DBOS",
    "dask": "Dask",
    "ray": "Ray",
}

_PAGE: Final = """# Benchmarks

The same small flow in asyncflow and in its peers: a first step makes a list, the second squares
each item in a task of its own, the third adds up. Each is a command, measured as a whole process
from its start to its end, with two workers. `make bench-peers` installs every peer at the version
below into an environment of its own, measures them in turns, and writes this page.

Measured on {date}: {machine}, Python {python}; medians of {rounds} rounds.

## What a task costs

What one more task takes, start and end of the program excluded: the difference between a run with
many tasks and one with a single task, divided.

![What one more task costs in each, on a logarithmic scale](pictures/benchmark-tasks.svg)

| | version | one more task | beside the bare pool | tasks in the long run | it took |
|---|---|---|---|---|---|
{tasks}

## What a run costs

A whole process with four tasks.

![How long a process with four tasks takes in each](pictures/benchmark-start.svg)

| | four tasks |
|---|---|
{starts}

## What each of them keeps

They do not do the same work: some write everything to disk before a task counts, and some keep
nothing.

| | |
|---|---|
{keeps}

The numbers are about small tasks. Where a task takes a minute, none of these engines is in the way.
"""

_BEGIN: Final = "<!-- written by make bench-peers: begin -->"
_END: Final = "<!-- written by make bench-peers: end -->"
_SUMMARY: Final = """
Measured on {date} with two workers each: {machine}, Python {python}. The table shows
a whole process with four tasks, and what one more task costs:

| | four tasks | one more task | results are kept |
|---|---|---|---|
{rows}

"""


def write_summary(results: dict[str, Any]) -> None:
    """Write the table in the README anew, between its two marks."""
    before, rest = README.read_text().split(_BEGIN)
    after = rest.split(_END)[1]
    rows = [
        f"| {_CALLED[peer['name']]} | {peer['four_tasks_seconds']:.2f} s "
        f"| {_duration(peer['task_milliseconds'])} | {peer['kept']} |"
        for peer in sorted(results["peers"], key=lambda peer: peer["task_milliseconds"])
    ]
    known = {name: results[name] for name in ("date", "machine", "python")}
    summary = _SUMMARY.format(**known, rows="\n".join(rows))
    README.write_text(f"{before}{_BEGIN}{summary}{_END}{after}")


def write_page(results: dict[str, Any]) -> None:
    """Write the page and its two pictures."""
    peers = sorted(results["peers"], key=lambda peer: peer["task_milliseconds"])
    floor = next(peer["task_milliseconds"] for peer in peers if peer["name"] == "pool")
    tasks = [
        f"| {_CALLED[peer['name']]} | {peer['version']} | {_duration(peer['task_milliseconds'])} "
        f"| {_ratio(peer['task_milliseconds'] / floor)} | {peer['many']:,} "
        f"| {peer['many_seconds']:.1f} s |"
        for peer in peers
    ]
    quickest = sorted(peers, key=lambda peer: peer["four_tasks_seconds"])
    starts = [
        f"| {_CALLED[peer['name']]} | {peer['four_tasks_seconds']:.2f} s |" for peer in quickest
    ]
    keeps = [f"| {_CALLED[peer['name']]} | {peer['keeps']} |" for peer in peers]
    page = _PAGE.format(
        **{name: results[name] for name in ("date", "machine", "python", "rounds")},
        tasks="\n".join(tasks),
        starts="\n".join(starts),
        keeps="\n".join(keeps),
    )
    (DOCS / "benchmarks.md").write_text(page)
    PICTURES.mkdir(exist_ok=True)
    _draw(
        PICTURES / "benchmark-tasks.svg",
        {peer["name"]: peer["task_milliseconds"] for peer in peers},
        "milliseconds for one more task (logarithmic)",
        logarithmic=True,
    )
    _draw(
        PICTURES / "benchmark-start.svg",
        {peer["name"]: peer["four_tasks_seconds"] for peer in quickest},
        "seconds for a process with four tasks",
    )


def _ratio(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:,.0f}"


def _duration(milliseconds: float) -> str:
    if milliseconds < 1:
        return f"{milliseconds * 1000:.0f} µs"
    return f"{milliseconds:,.3g} ms" if milliseconds < 1000 else f"{milliseconds / 1000:.2f} s"


def _draw(file: Path, values: dict[str, float], label: str, *, logarithmic: bool = False) -> None:
    """Horizontal bars, the smallest above; text stays text, so that the page's font is used."""
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": file.stem})
    figure = Figure(figsize=(7.5, 0.34 * len(values) + 0.9), layout="constrained")
    axes = figure.subplots()
    names = [_CALLED[name] for name in values]
    colours = ["#4353c4" if name == "asyncflow" else "#b8bfcc" for name in values]
    bars = axes.barh(names, list(values.values()), color=colours, height=0.66)
    axes.bar_label(bars, fmt="{:,.3g}", padding=4, color="#6b7280")
    axes.invert_yaxis()
    if logarithmic:
        axes.set_xscale("log")
    axes.margins(x=0.12)
    axes.set_xlabel(label, color="#6b7280")
    axes.tick_params(colors="#6b7280", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color("#b8bfcc")
    figure.savefig(file, transparent=True, metadata={"Date": None})
