"""A 256 MiB array through a run: made in one step, read in the next, changed in the third.

Beside it, in turn: the same program by hand, which makes the array, hashes and writes it, reads it
back from the file as another process would, changes it, and hashes and writes it again; and of that
the two plain hashes and writes alone. The run's time is that of its three steps, from the first's
start to the third's end. Each round has an array of its own: what the store has is not written.

Then 100 arrays of 4 MiB that the tasks of a foreach make on two workers, from the first task's
start to the last one's end. Beside it, in turn: two processes that make as many arrays and write
each to a file, as the store does: under another name, and with fsync of the file and its folder if
the store is to survive a power cut. Without it, that is the rate of memory, else that of the disk.

At last, what other async steps of a worker notice while a large value is stored or read: see
`benchmarks/gaps.py`.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import numpy as np
from blake3 import blake3

from asyncflow import Engine, FlowSpec, Parameter, Run, events, step
from asyncflow._support.settings import Settings
from benchmarks import gaps

BYTES = 256 << 20
ROUNDS = 5
REQUIRED = 1.2
MANY, MANY_BYTES, MANY_WORKERS = 100, 4 << 20, 2
REQUIRED_RATE = 0.8


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


class ManyArrays(FlowSpec):
    """Makes an array in each task of a foreach."""

    count = Parameter("count", default=MANY)
    first = Parameter(
        "first", default=0.0, help="makes the arrays ones that the store has not seen"
    )

    @step
    def start(self) -> None:
        """Fan out."""
        self.numbers = list(range(self.count))
        self.next(self.work, foreach="numbers")

    @step
    def work(self) -> None:
        """Make one."""
        self.array = one_of_many(self.first, self.input)
        self.next(self.join)

    @step
    def join(self, inputs: Any) -> None:
        """Read none of them."""
        del inputs
        self.next(self.end)

    @step
    def end(self) -> None:
        """Nothing is left to do."""


def one_of_many(first: float, number: int) -> np.ndarray:
    """An array that differs from all others."""
    return np.arange(first + number, first + number + MANY_BYTES // 8)


def written_plainly(
    folder: str, first: float, numbers: range, begin: Any, ended: Any, *, durable: bool
) -> None:
    """Be one of two processes that write arrays to files; told to begin, and tell the end."""
    ended.put(None)
    begin.wait()
    for number in numbers:
        path = Path(folder) / f"{number}.new"
        with path.open("wb", buffering=0) as file:
            file.write(one_of_many(first, number).view("u1").data)
            if durable:
                os.fsync(file.fileno())
        path.rename(path.with_suffix(""))
        if durable:
            descriptor = os.open(folder, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
    ended.put(time.perf_counter())


def plain_seconds(folder: Path, first: float, *, durable: bool) -> float:
    """How long two processes take for all arrays, from the moment at which both are ready."""
    folder.mkdir()
    context = multiprocessing.get_context("spawn")
    begin, ended = context.Event(), context.Queue()
    shares = [range(worker, MANY, MANY_WORKERS) for worker in range(MANY_WORKERS)]
    writers = [
        context.Process(
            target=written_plainly,
            args=(str(folder), first, share, begin, ended),
            kwargs={"durable": durable},
        )
        for share in shares
    ]
    for writer in writers:
        writer.start()
    for _ in writers:
        ended.get()
    began = time.perf_counter()
    begin.set()
    seconds: float = max(ended.get() for _ in writers) - began
    for writer in writers:
        writer.join()
    shutil.rmtree(folder)
    return seconds


async def compare_many(*, durable: bool) -> None:
    """Print the rate of the foreach beside that of plain writes."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(
            store=Path(folder) / "store",
            workers=MANY_WORKERS,
            durability="power" if durable else "crash",
        )
        async with Engine(settings=settings) as engine:
            await engine.run(ManyArrays, count=20)
            taken, plain = [], []
            for _ in range(ROUNDS):
                shutil.rmtree(Path(engine.settings.store) / "blobs")  # as above
                first = random.random()
                plain.append(plain_seconds(Path(folder) / "plain", first, durable=durable))
                run = await engine.run(ManyArrays, first=first)
                told = [e for e in run.events() if getattr(e, "step", "") == "work"]
                began = min(e.time for e in told if isinstance(e, events.TaskStarted))
                ended = max(e.time for e in told if isinstance(e, events.TaskSucceeded))
                taken.append((ended - began).total_seconds())
    ratio = statistics.median(base / each for base, each in zip(plain, taken, strict=True))
    rate = MANY * MANY_BYTES / statistics.median(taken) / (1 << 20)
    how = "with fsync" if durable else "without fsync"
    print(f"{MANY} arrays of {MANY_BYTES >> 20} MiB from a foreach, {how}: {rate:.0f} MiB/s")
    print(f"  two processes that make and write them: {ratio:.2f} of their rate ", end="")
    print(f"(at least {REQUIRED_RATE})")


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
    """Run the comparisons."""
    anyio.run(compare)
    for durable in (False, True):
        anyio.run(partial(compare_many, durable=durable))
    anyio.run(gaps.measure)


if __name__ == "__main__":
    main()
