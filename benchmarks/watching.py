"""What subscribers cost: the throughput of a run with ten of them, beside that with none.

Both are measured in turn within one run, on a warm engine, and each round is compared with itself,
so that what else the machine does meanwhile touches both; the quartiles tell how much it did.
Subscribers get every event of the run: one by one, where most of the cost is Python's own for an
`async for`, and by `batches()`. Tasks that print are measured too, because output is what has most
events: there the ten are handed 70 events for each task. The engine's CPU time tells where the
difference comes from, and does not depend on what else runs.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from dataclasses import dataclass, field
from operator import truediv
from typing import TYPE_CHECKING

import anyio

from asyncflow import Engine, events
from benchmarks.flows import NoOps, Talkative

if TYPE_CHECKING:
    from asyncflow.engine.subscription import Subscription
    from asyncflow.events import Event

WORKERS = 2
SUBSCRIBERS = 10
REQUIRED = 0.9


@dataclass
class Measured:
    """What the rounds with so many subscribers have come to."""

    subscribers: int
    in_batches: bool = False
    rates: list[float] = field(default_factory=list)
    microseconds: list[float] = field(default_factory=list)

    async def run(self, engine: Engine, flow: type, tasks: int) -> None:
        """One round: a whole run, until the last subscriber has its last event."""
        counts: list[int] = []
        began, cpu_began = time.perf_counter(), time.process_time()
        async with anyio.create_task_group() as group:
            for _ in range(self.subscribers):
                group.start_soon(self.read, engine.subscribe(), counts)
            run = await engine.run(flow, width=tasks)
        self.rates.append(tasks / (time.perf_counter() - began))
        self.microseconds.append((time.process_time() - cpu_began) / tasks * 1e6)
        assert len(counts) == self.subscribers  # noqa: S101 - a wrong answer is worth nothing
        assert all(count == counts[0] >= 2 * tasks for count in counts)  # noqa: S101 - a wrong answer is worth nothing
        assert run.data.count == tasks  # noqa: S101 - a wrong answer is worth nothing

    async def read(self, subscription: Subscription[Event], counts: list[int]) -> None:
        """Take every event of one run."""
        count = 0
        async with subscription:
            if self.in_batches:
                async for batch in subscription.batches():
                    count += len(batch)
                    if isinstance(batch[-1], events.RunSucceeded):
                        break
            else:
                async for event in subscription:
                    count += 1
                    if isinstance(event, events.RunSucceeded):
                        break
        counts.append(count)

    def __str__(self) -> str:
        rate, cpu = statistics.median(self.rates), statistics.median(self.microseconds)
        return f"{rate:6.0f} tasks/s, {cpu:3.0f} µs of the engine for each"


async def compare(tasks: int, rounds: int) -> None:
    """Print the rates and their ratios."""
    print(f"{tasks} tasks, {WORKERS} workers, median of {rounds} rounds")
    with tempfile.TemporaryDirectory() as store:
        async with Engine(store=store, workers=WORKERS) as engine:
            await Measured(SUBSCRIBERS).run(engine, NoOps, 1000)
            for flow, required in ((NoOps, f" (at least {REQUIRED})"), (Talkative, "")):
                none, ten = Measured(0), Measured(SUBSCRIBERS)
                batches = Measured(SUBSCRIBERS, in_batches=True)
                for turn in range(rounds):
                    order = [none, ten, batches]
                    for measured in order[turn % 3 :] + order[: turn % 3]:
                        await measured.run(engine, flow, tasks)
                print(f"  {flow.__name__:9s}  none        {none}")
                for what, measured in (("one by one", ten), ("in batches", batches)):
                    ratios = map(truediv, measured.rates, none.rates)
                    low, ratio, high = statistics.quantiles(ratios)
                    print(f"  {'':9s}  {what}  {measured}")
                    print(f"  {'':9s}  ratio {ratio:.2f}{required}, quartiles {low:.2f} {high:.2f}")


def main(tasks: int = 10_000, rounds: int = 15) -> None:
    """Run the comparison."""
    anyio.run(compare, tasks, rounds)


if __name__ == "__main__":
    main()
