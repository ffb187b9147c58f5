"""One engine works without a pause, and does not grow.

By hand: `python -m tests.durability.chaos.soak MINUTES`.

Runs of every kind go on side by side: foreachs of `def` and async steps, retries, catches, failures
that are resumed, cancelled runs, workers that end themselves, subscribers that come and go. Old
runs are removed and garbage is collected meanwhile. Each tenth of the time a line is printed; at
the end, memory, descriptors, threads and processes must be what they were.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from random import Random
from statistics import median
from typing import NamedTuple

import psutil

from asyncflow import Engine, FlowSpec, current, events, retry, step
from asyncflow.errors import RunCancelledError, RunFailedError
from asyncflow.store.layout import Layout
from asyncflow.store.maintenance import verify
from asyncflow.store.maintenance.collect import collect
from asyncflow.store.maintenance.remove import remove
from tests.durability.chaos import scenarios

_AT_ONCE = 6
_KEPT_RUNS = 20  # of each flow
_SAMPLES = 60
_GROWN_BYTES = (
    24 << 20
)  # of all processes together, beyond a tenth: far less than a leak in each run
_GROWN_DESCRIPTORS = 16  # some runs more may be going on in one moment than in another


class Deadly(FlowSpec):
    """Its workers end themselves, as one that is killed for its memory would."""

    @step
    def start(self):
        self.items = list(range(4))
        self.next(self.work, foreach="items")

    @retry(times=5, seconds=0)
    @step
    def work(self):
        if current.attempt == 0 and self.input == 2:
            os._exit(1)
        self.value = b"v" * scenarios.SEGMENT
        self.next(self.join)

    @step
    def join(self, inputs):
        self.answer = len(inputs)
        self.next(self.end)

    @step
    def end(self):
        pass


class Wide(scenarios.Foreach):
    """Some hundred tasks."""

    width = 200


_FLOWS = [
    scenarios.Linear,
    scenarios.Branch,
    scenarios.Foreach,
    scenarios.Nested,
    scenarios.Async,
    scenarios.Retry,
    scenarios.Catch,
    scenarios.Resumed,
    scenarios.Cancelled,
    Wide,
    Deadly,
]


class Sample(NamedTuple):
    """What the engine's process and its workers hold at a moment."""

    bytes: int
    """Memory that they have to themselves (USS), of all of them together."""
    engine_bytes: int
    descriptors: int
    """Of the engine's process."""
    threads: int
    processes: int


class Soak:
    """One engine at work."""

    def __init__(self, store: Path, seconds: float) -> None:
        self._store, self._seconds = store, seconds
        self._random = Random(1)
        self._until = time.monotonic() + seconds
        self.samples: list[Sample] = []
        self.runs = self.tasks = 0

    async def work(self) -> None:
        """Work until the time is over."""
        async with (
            Engine(store=self._store, workers=2) as self._engine,
            asyncio.TaskGroup() as group,
        ):
            for _ in range(_AT_ONCE):
                group.create_task(self._run_on())
            group.create_task(self._watch())
            group.create_task(self._count())
            group.create_task(self._tidy())
        damage = verify.verify(Layout(self._store)).damage
        assert not damage, damage

    @property
    def _is_over(self) -> bool:
        return time.monotonic() > self._until

    async def _run_on(self) -> None:
        while not self._is_over:
            flow = self._random.choice(_FLOWS)
            handle = await self._engine.start(flow)
            if flow is scenarios.Cancelled:
                await asyncio.sleep(self._random.uniform(0.0, 0.1))
                handle.cancel()
            try:
                await handle
            except RunFailedError:
                if flow is not scenarios.Resumed:
                    raise
                with suppress(RunFailedError):  # it fails again: nothing has been mended
                    await self._engine.resume(flow, origin=handle.run_id)
            except RunCancelledError:
                if flow is not scenarios.Cancelled:
                    raise
            self.runs += 1

    async def _count(self) -> None:
        """A subscriber that comes and goes."""
        while not self._is_over:
            async with self._engine.subscribe(events.TaskSucceeded) as stream:
                with suppress(TimeoutError):
                    async with asyncio.timeout(min(2.0, self._seconds / 20)):
                        async for _ in stream:
                            self.tasks += 1

    async def _tidy(self) -> None:
        while not self._is_over:
            await asyncio.sleep(min(20.0, self._seconds / 20))
            await asyncio.to_thread(self._remove_old)

    def _remove_old(self) -> None:
        layout = Layout(self._store)
        for flow in layout.flows():
            old = layout.runs(flow)[_KEPT_RUNS + _AT_ONCE :]
            remove(layout, [(flow, run_id) for run_id in old])
        collect(layout)

    async def _watch(self) -> None:
        told = time.monotonic()
        while not self._is_over:
            await asyncio.sleep(self._seconds / _SAMPLES)
            self.samples.append(await asyncio.to_thread(measure))
            if time.monotonic() - told >= self._seconds / 10:
                told = time.monotonic()
                self._tell()

    def _tell(self) -> None:
        at = self.samples[-1]
        minutes = (self._seconds - (self._until - time.monotonic())) / 60
        print(
            f"{minutes:6.1f} min {self.runs:8,} runs {self.tasks:10,} tasks  "
            f"all {at.bytes >> 20:4} MiB, engine {at.engine_bytes >> 20:4} MiB, "
            f"{at.descriptors:3} descriptors, {at.threads:2} threads, {at.processes:2} processes",
            flush=True,
        )

    def check(self) -> str:
        """Compare the last quarter of the time with the second; what was found.

        Raises:
            AssertionError: Something has grown.
        """
        quarter = len(self.samples) // 4
        before, after = self.samples[quarter : 2 * quarter], self.samples[-quarter:]
        first, last = (Sample(*map(median, zip(*part, strict=True))) for part in (before, after))
        assert last.bytes <= 1.1 * first.bytes + _GROWN_BYTES, (first, last)
        assert last.engine_bytes <= 1.1 * first.engine_bytes + _GROWN_BYTES, (first, last)
        assert last.descriptors <= first.descriptors + _GROWN_DESCRIPTORS, (first, last)
        assert last.threads <= first.threads + 4, (first, last)
        assert last.processes <= first.processes + 2, (first, last)
        return (
            f"{self._seconds / 60:g} minutes, {self.runs:,} runs, {self.tasks:,} tasks; "
            f"from the second quarter to the last: memory {first.bytes / 2**20:.0f} -> "
            f"{last.bytes / 2**20:.0f} MiB, of the engine {first.engine_bytes / 2**20:.0f} -> "
            f"{last.engine_bytes / 2**20:.0f}, descriptors {first.descriptors:.0f} -> "
            f"{last.descriptors:.0f}, threads {first.threads:.0f} -> {last.threads:.0f}, "
            f"processes {first.processes:.0f} -> {last.processes:.0f}"
        )


def measure() -> Sample:
    """What this process and all that it has started hold."""
    own = psutil.Process()
    sizes = []
    for process in [own, *own.children(recursive=True)]:
        with suppress(psutil.Error):
            sizes.append(process.memory_full_info().uss)
    return Sample(sum(sizes), sizes[0], own.num_fds(), own.num_threads(), len(sizes))


def soak(minutes: float) -> str:
    """Have an engine work for so many minutes; what was found.

    Raises:
        AssertionError: It has grown.
        ExceptionGroup: A run did not end as it should.
    """
    with tempfile.TemporaryDirectory(prefix="asyncflow-soak-") as folder:
        for name in ("RAN", "MENDED"):
            os.environ[name] = f"{folder}/{name.lower()}"
        os.environ["RAN"] = os.devnull
        soaking = Soak(Path(folder) / "store", minutes * 60)
        asyncio.run(soaking.work())
    return soaking.check()


def main() -> None:
    """Soak for as many minutes as are asked for."""
    try:
        print(soak(float(sys.argv[1])))
    except AssertionError as error:
        sys.exit(f"something has grown: {error}")


if __name__ == "__main__":
    main()
