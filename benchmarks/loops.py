"""A step that a condition repeats, beside a chain of steps that do the same."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio

from asyncflow import Engine
from asyncflow.flow.loader import load_file
from benchmarks.flows import Turns
from benchmarks.scale import peak_during

if TYPE_CHECKING:
    from asyncflow import FlowSpec

SMALL, LARGE, ROUNDS = 1_000, 100_000, 5

HEAD = f"""
    turns = Parameter("turns", default={SMALL})

    @step
    def start(self) -> None:
        self.done = 0
        self.next(self.turn0)
"""
STEP = """
    @step
    def {name}(self) -> None:
        self.done += 1
        self.again = self.done < self.turns
        self.next(self.{following})
"""


def chain(folder: Path) -> type[FlowSpec]:
    """A flow whose steps do what `Turns` does in its turns."""
    names = [f"turn{number}" for number in range(SMALL)]
    text = "from asyncflow import FlowSpec, Parameter, step\n\n\nclass Chain(FlowSpec):\n"
    text += HEAD
    for name, following in zip(names, [*names[1:], "end"], strict=True):
        text += STEP.format(name=name, following=following)
    text += "\n    @step\n    def end(self) -> None:\n        pass\n"
    file = folder / "benchmark_chain.py"
    file.write_text(text)
    found: type[FlowSpec] = load_file(file).Chain
    return found


async def compare() -> None:
    """Print the cost per task of both, and of a loop that is a hundred times as long."""
    with tempfile.TemporaryDirectory() as folder:
        async with Engine(store=Path(folder) / "store", workers=1) as engine:

            async def per_task(flow: type[FlowSpec], turns: int) -> float:
                began = time.perf_counter()
                await engine.run(flow, turns=turns)
                return (time.perf_counter() - began) / turns

            flows: dict[str, Any] = {"chain": chain(Path(folder)), "loop": Turns}
            seconds: dict[str, list[float]] = {name: [] for name in flows}
            for flow in flows.values():
                await engine.run(flow, turns=SMALL)
            for _ in range(ROUNDS):
                for name, flow in flows.items():
                    seconds[name].append(await per_task(flow, SMALL))
            large = 0.0

            async def run_large() -> None:
                nonlocal large
                large = await per_task(Turns, LARGE)

            grown = await peak_during(run_large)
    of_chain, of_loop = (min(each) for each in seconds.values())
    print(f"a task of a chain: {of_chain * 1e6:.0f} µs; of a loop: {of_loop * 1e6:.0f} µs")
    print(f"  ratio {of_loop / of_chain:.2f} (at most 1.2)")
    print(f"a task of a loop of {LARGE} turns: {large * 1e6:.0f} µs")
    print(f"  ratio {large / of_chain:.2f} (at most 1.2)")
    print(f"engine memory: {grown / LARGE:.0f} bytes for a turn (at most 1024)")


def main() -> None:
    """Run the comparison."""
    anyio.run(compare)


if __name__ == "__main__":
    main()
