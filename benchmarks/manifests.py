"""What it costs that tasks have many artifacts: to make them, to join them, and to pass them on.

Passing on should cost nothing for each artifact, so the same flow runs with few and with many
artifacts made before, in alternating rounds. The costs are processor time of the workers, as their
tasks report it, wall time, and bytes of the journal.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from asyncflow import Engine, FlowSpec, Parameter, step

if TYPE_CHECKING:
    from asyncflow import Run
    from asyncflow.flow.join_inputs import Inputs

ROUNDS = 5
FEW, MANY = 2, 1_000
TASKS = 1_000
INPUTS = 10_000
REQUIRED_SECONDS = 0.3, 1.5  # to join 10,000 inputs; to make 100 artifacts in each of 1,000 tasks


class Passing(FlowSpec):
    """Artifacts that are made at the start, and passed on by a chain, a foreach and a join."""

    made = Parameter("made", default=FEW)
    turns = Parameter("turns", default=TASKS)
    width = Parameter("width", default=TASKS)

    @step
    def start(self) -> None:
        """Make them."""
        for number in range(self.made):
            setattr(self, f"made_{number}", number)
        self.done = 0
        self.next(self.turn)

    @step
    def turn(self) -> None:
        """Pass them on, and change one."""
        self.done += 1
        self.again = self.done < self.turns
        self.next({True: self.turn, False: self.split}, condition="again")

    @step
    def split(self) -> None:
        """Pass them on to many."""
        self.items = list(range(self.width))
        self.next(self.each, foreach="items")

    @step
    def each(self) -> None:
        """Pass them on, and make one."""
        self.found = self.input
        self.next(self.join)

    @step
    def join(self, inputs: Inputs) -> None:
        """Read one of each."""
        self.total = sum(each.found for each in inputs)
        self.next(self.end)

    @step
    def end(self) -> None:
        """Nothing is left to do."""


class Wide(FlowSpec):
    """A join that reads one artifact of each of its inputs, which have several."""

    width = Parameter("width", default=INPUTS)

    @step
    def start(self) -> None:
        """Fan out."""
        self.items = list(range(self.width))
        self.next(self.each, foreach="items")

    @step
    def each(self) -> None:
        """Make three."""
        self.found, self.text, self.flag = self.input, "some text", True
        self.next(self.join)

    @step
    def join(self, inputs: Inputs) -> None:
        """Read one of each."""
        began = time.perf_counter()
        self.total = sum(each.found for each in inputs)
        self.seconds = time.perf_counter() - began
        self.next(self.end)

    @step
    def end(self) -> None:
        """Nothing is left to do."""


class Making(FlowSpec):
    """Many tasks that make many small artifacts each."""

    each_makes = Parameter("each-makes", default=100)

    @step
    def start(self) -> None:
        """Fan out."""
        self.items = list(range(TASKS))
        self.next(self.each, foreach="items")

    @step
    def each(self) -> None:
        """Make them."""
        for number in range(self.each_makes):
            setattr(self, f"made_{number}", number * self.input)
        self.next(self.join)

    @step
    def join(self, inputs: Inputs) -> None:
        """Count them."""
        self.number = len(inputs)
        self.next(self.end)

    @step
    def end(self) -> None:
        """Nothing is left to do."""


def microseconds(run: Run, name: str) -> float:
    """Processor time of a worker for each task of a step, the median in µs."""
    spent = [task.cpu_seconds for task in run[name]]
    return 1e6 * statistics.median(each for each in spent if each is not None)


def journal_bytes(store: str, run: Run) -> int:
    """How long the run's journal is."""
    return Path(store, "flows", run.pathspec, "journal").stat().st_size


async def passing(engine: Engine, store: str) -> None:
    """Few and many artifacts, in alternation."""
    walls: dict[int, list[float]] = {FEW: [], MANY: []}
    turns: dict[int, list[float]] = {FEW: [], MANY: []}
    eaches: dict[int, list[float]] = {FEW: [], MANY: []}
    sizes: dict[int, int] = {}
    for _ in range(ROUNDS):
        for made in (FEW, MANY):
            began = time.perf_counter()
            run = await engine.run(Passing, made=made)
            walls[made].append(time.perf_counter() - began)
            turns[made].append(microseconds(run, "turn"))
            eaches[made].append(microseconds(run, "each"))
            sizes[made] = journal_bytes(store, run)
    print(f"{TASKS:,} turns of a loop and {TASKS:,} tasks of a foreach that pass artifacts on")
    for made in (FEW, MANY):
        wall, turn, each = (min(found[made]) for found in (walls, turns, eaches))
        print(
            f"  {made:>5} passed on: {wall:6.2f} s, journal {sizes[made]:>12,} bytes; "
            f"worker {turn:6.0f} µs a turn, {each:6.0f} µs an item"
        )
    print(f"  ratio of the wall time: {min(walls[MANY]) / min(walls[FEW]):.2f}")


async def joining(engine: Engine) -> None:
    """A wide join."""
    seconds = [(await engine.run(Wide)).data.seconds for _ in range(ROUNDS)]
    limit, _ = REQUIRED_SECONDS
    print(f"one artifact of {INPUTS:,} inputs: {min(seconds):.3f} s (at most {limit})")


async def making(engine: Engine) -> None:
    """Tasks with a hundred artifacts each, beside the same with one."""
    walls: dict[int, list[float]] = {1: [], 100: []}
    for _ in range(ROUNDS):
        for number, seconds in walls.items():
            began = time.perf_counter()
            await engine.run(Making, each_makes=number)
            seconds.append(time.perf_counter() - began)
    _, limit = REQUIRED_SECONDS
    print(
        f"{TASKS:,} tasks with 100 artifacts: {min(walls[100]):.2f} s (at most {limit}), ", end=""
    )
    print(f"with one: {min(walls[1]):.2f} s")


async def measure() -> None:
    """Print all of it."""
    with tempfile.TemporaryDirectory() as store:
        async with Engine(store=store, workers=2) as engine:
            await engine.run(Passing, turns=10, width=10)
            await passing(engine, store)
            await joining(engine)
            await making(engine)


def main() -> None:
    """Measure."""
    anyio.run(measure)


if __name__ == "__main__":
    main()
