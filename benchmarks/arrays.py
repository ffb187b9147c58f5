"""A 256 MiB array through a run: made in one step, read in the next, changed in the third.

Beside it, in turn: the same program by hand, which makes the array, hashes and writes it, reads it
back from the file as another process would, changes it, and hashes and writes it again; and of that
the two plain hashes and writes alone. The run's time is that of its three steps, from the first's
start to the third's end. Each round has an array of its own: what the store has is not written.
"""

from __future__ import annotations

import random
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import anyio
import numpy as np
from blake3 import blake3

from asyncflow import Engine, FlowSpec, Parameter, Run, events, step

BYTES = 256 << 20
ROUNDS = 5
REQUIRED = 1.2


class Arrays(FlowSpec):
    """Hands one large array through three steps."""

    change = Parameter("change", default="one element")
    first = Parameter("first", default=0.0, help="makes the array one that the store has not seen")

    @step
    def start(self) -> None:
        """Make it."""
        self.array = made(self.first)
        self.next(self.read)

    @step
    def read(self) -> None:
        """Read it: no write, no copy, no second hash."""
        self.total = float(self.array[::512].sum())
        self.next(self.write)

    @step
    def write(self) -> None:
        """Change it in place."""
        if self.change == "one element":
            self.array[5] = 2.0
        else:
            self.array += 1.0
        self.next(self.end)

    @step
    def end(self) -> None:
        """Nothing is left to do."""


def made(first: float) -> np.ndarray:
    """An array that differs from page to page, and from every other of another first element."""
    return np.arange(first, first + BYTES // 8)


def hashed_and_written(array: np.ndarray, path: Path) -> float:
    """Seconds for one plain hash and write."""
    began = time.perf_counter()
    data = array.view("u1").data
    blake3(data).digest()
    with path.open("wb", buffering=0) as file:
        file.write(data)
    return time.perf_counter() - began


def by_hand(folder: Path, change: str, first: float) -> tuple[float, float]:
    """Seconds for the program by hand, and for its two hashes and writes."""
    began = time.perf_counter()
    array = made(first)
    plain = hashed_and_written(array, folder / "made")
    del array
    array = np.fromfile(folder / "made")  # as the process of the next step would
    float(array[::512].sum())
    if change == "one element":
        array[5] = 2.0
    else:
        array += 1.0
    plain += hashed_and_written(array, folder / "changed")
    seconds = time.perf_counter() - began
    for name in ("made", "changed"):
        (folder / name).unlink()
    return seconds, plain


def seconds_of(run: Run) -> dict[str, float]:
    """What each step took, and the three together."""
    ended = {e.step: e for e in run.events() if isinstance(e, events.TaskSucceeded)}
    began = {e.step: e for e in run.events() if isinstance(e, events.TaskStarted)}
    steps = {name: event.seconds for name, event in ended.items() if name != "end"}
    whole = (ended["write"].time - began["start"].time).total_seconds()
    return {**steps, "whole": whole}


def report(name: str, whole: list[float], base: list[float]) -> None:
    """Print what was measured beside it, and the ratio, pair by pair."""
    ratio = statistics.median(run / other for run, other in zip(whole, base, strict=True))
    seconds = statistics.median(base)
    print(f"  {name} {seconds:.3f} s, ratio {ratio:.2f} (at most {REQUIRED})")


async def compare() -> None:
    """Print the ratio for a change of one element, and of all of them."""
    with tempfile.TemporaryDirectory() as folder:
        async with Engine(store=Path(folder) / "store", workers=1) as engine:
            await engine.run(Arrays)
            for change in ("one element", "all of it"):
                hand, plain, whole, steps = [], [], [], []
                for _ in range(ROUNDS):
                    shutil.rmtree(Path(engine.settings.store) / "blobs")  # equal data is not stored
                    first = random.random()
                    program, writes = by_hand(Path(folder), change, first)
                    hand.append(program)
                    plain.append(writes)
                    taken = seconds_of(await engine.run(Arrays, change=change, first=first))
                    whole.append(taken["whole"])
                    steps.append(taken)
                print(f"changing {change}: {statistics.median(whole):.3f} s")
                report("two writes and hashes", whole, plain)
                report("the program by hand", whole, hand)
                print("  steps", end="  ")
                for name in ("start", "read", "write"):
                    print(f"{name} {statistics.median(s[name] for s in steps):.3f} s", end="  ")
                print()


def main() -> None:
    """Run the comparison."""
    anyio.run(compare)


if __name__ == "__main__":
    main()
