"""How long a resume of a run with 100,000 finished tasks takes: to say its plan, and to do it."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import anyio

from asyncflow import Engine
from asyncflow.errors import RunFailedError
from asyncflow.scheduling.resume_preview import preview_resume
from benchmarks.flows import Unfinished

WIDTH = 100_000


def _bytes_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


async def compare() -> None:
    """Print what running the tasks takes, and what taking them over does."""
    with tempfile.TemporaryDirectory() as folder:
        store, mended = Path(folder) / "store", Path(folder) / "mended"
        async with Engine(store=store, workers=2) as engine:
            began = time.perf_counter()
            try:
                await engine.run(Unfinished, width=WIDTH, mended=str(mended))
            except RunFailedError as error:
                origin = error.run.id
            ran = time.perf_counter() - began
            mended.touch()

            began = time.perf_counter()
            plan = preview_resume(Unfinished, store=store, origin=origin)
            planned = time.perf_counter() - began

            began = time.perf_counter()
            run = await engine.resume(Unfinished, origin=origin)
            resumed = time.perf_counter() - began

            began = time.perf_counter()
            await engine.resume(Unfinished, origin=run.id)
            again = time.perf_counter() - began
        reused = sum(step.reused for step in plan)
        written = _bytes_of(store / "flows" / "Unfinished" / run.id)
    print(f"run: {ran:.1f} s; its plan: {planned:.1f} s for {reused} tasks to reuse")
    print(
        f"resume: {resumed:.1f} s ({resumed / ran:.2f} of the run); of the resumed: {again:.1f} s"
    )
    print(f"what a resume writes: {written / WIDTH:.0f} bytes for a task")


def main() -> None:
    """Run the comparison."""
    anyio.run(compare)


if __name__ == "__main__":
    main()
