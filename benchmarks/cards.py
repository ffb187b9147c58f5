"""What a card costs a step, its event and its file; and how soon a refresh is heard of.

The first rows are in the code of a worker alone, without a run around it: what `@card` adds to an
attempt, in microseconds. The others are whole runs, beside the same run without cards: their CPU
time, since a rate of a thousand tasks says more about what else the machine does.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from operator import truediv
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from asyncflow import Engine, FlowSpec, Run, Task, card, current, step
from asyncflow.card_content.component import Images
from asyncflow.card_content.document import Document, pack_document
from asyncflow.cards import Markdown, ProgressBar, Table, VegaChart, get_cards
from asyncflow.events import CardUpdated
from asyncflow.flow.graph_reader import prepare, read_graph
from asyncflow.store.artifacts import ArtifactWriter
from asyncflow.store.unstored import Unstored
from asyncflow.workers.messages import AttemptKey
from asyncflow.workers.process.task_cards import TaskCards

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 7
TASKS = 3000


class Plain(FlowSpec):
    """Tasks without cards."""

    @step
    def start(self) -> None:
        """Begin."""
        self.items = list(range(TASKS))
        self.next(self.work, foreach="items")

    @step
    def work(self) -> None:
        """Do nothing else."""
        self.next(self.join)

    @step
    def join(self, inputs: object) -> None:
        """Wait for all."""
        del inputs
        self.next(self.end)

    @step
    def end(self) -> None:
        """End."""


class Carded(Plain):
    """The same with a card that nothing is added to."""

    @card
    @step
    def work(self) -> None:
        """Do nothing else."""
        self.next(self.join)


class Filled(Plain):
    """The same with a card that has some text."""

    @card
    @step
    def work(self) -> None:
        """Do nothing else."""
        current.card.append(Markdown("# A title"))
        self.next(self.join)


class Refreshing(FlowSpec):
    """Refreshes its card fifty times."""

    @card(type="blank", refresh_interval=0)
    @step
    def start(self) -> None:
        """Begin."""
        bar = ProgressBar(max=50)
        current.card.append(bar)
        for number in range(50):
            bar.update(number, str(time.time()))
            current.card.refresh()
            time.sleep(0.02)
        self.next(self.end)

    @step
    def end(self) -> None:
        """End."""


def microseconds(call: Callable[[], object], times: int) -> float:
    """The least of some rounds: what else the machine does only adds to it."""
    taken = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        for _ in range(times):
            call()
        taken.append((time.perf_counter() - began) / times * 1e6)
    return min(taken)


def of_an_attempt() -> None:
    """What one attempt does more because of its `@card`."""
    flow = prepare(Filled)
    node = read_graph(flow)["work"]
    writer = ArtifactWriter(Unstored())

    def made() -> Any:
        return object.__new__(flow)

    def untouched() -> None:
        cards = TaskCards(node, AttemptKey(1, 1, 0), made(), writer)
        if cards.is_needed:
            cards.finish()

    def filled() -> None:
        cards = TaskCards(node, AttemptKey(1, 1, 0), made(), writer)
        cards.collector.append(Markdown("# A title"))
        cards.finish()

    instance = microseconds(made, 2000)
    print(f"a card that nothing is added to {microseconds(untouched, 2000) - instance:6.1f} us")
    print(f"a card with a line of text      {microseconds(filled, 500) - instance:6.1f} us")


async def of_a_run(folder: Path) -> None:
    """Tasks with cards, beside as many without, in alternation: the CPU time of all processes."""
    used: dict[str, list[float]] = {}
    async with Engine(store=folder / "store") as engine:
        for flow in (Plain, Carded, Filled):
            await engine.run(flow)  # warm
        for _ in range(ROUNDS):
            for flow in (Plain, Carded, Filled):
                before = cpu_seconds()
                await engine.run(flow)
                used.setdefault(flow.__name__, []).append((cpu_seconds() - before) / TASKS * 1e6)
    plain, carded, filled = (used[name] for name in ("Plain", "Carded", "Filled"))
    print(f"a task without a card           {statistics.median(plain):8.1f} us of all processes")
    for what, times in (("with @card, untouched", carded), ("with a line of text", filled)):
        ratio = statistics.median(map(truediv, times, plain))
        print(f"{what:32s}{statistics.median(times):8.1f} us, {ratio:.2f} of that")


def cpu_seconds() -> float:
    """What this process and its workers have used so far."""
    program = psutil.Process()
    times = [each.cpu_times() for each in (program, *program.children(recursive=True))]
    return sum(each.user + each.system for each in times)


async def of_a_refresh(folder: Path) -> None:
    """From `refresh` to the event, in the engine's own process."""
    late = []
    async with Engine(store=folder / "store") as engine:
        handle = await engine.start(Refreshing)
        async for _ in handle.events(CardUpdated):
            heard = time.time()
            task = Task(f"{handle.pathspec}/start/1", store=engine.settings.store)
            (part,) = get_cards(task)[0].drawing()["parts"]
            late.append((heard - float(part["details"])) * 1000)
        await handle
    late.sort()
    print(f"from refresh to event, median   {statistics.median(late):8.1f} ms")
    print(f"                       95%      {late[int(len(late) * 0.95)]:8.1f} ms")


def of_files() -> None:
    """How long a card is."""
    table = Table([[number, number / 7, "text"] for number in range(20)], headers=["a", "b", "c"])
    parts = [part._part(Images(), 0) for part in (Markdown("# Title"), table)]  # noqa: SLF001 - what is measured
    print(
        f"a document, title and 20 rows   {len(pack_document(Document('blank', parts))):8,d} bytes"
    )


async def files_of_a_run(folder: Path) -> None:
    """How long the files of cards are."""

    class Charted(FlowSpec):
        """A chart."""

        @card(type="blank", id="text")
        @card(type="blank", id="chart")
        @step
        def start(self) -> None:
            """Begin."""
            current.card["text"].append(Markdown("# Title"))
            current.card["chart"].append(VegaChart({"mark": "bar", "data": {"values": [{"a": 1}]}}))
            self.next(self.end)

        @step
        def end(self) -> None:
            """End."""

    async with Engine(store=folder / "store") as engine:
        run: Run = await engine.run(Charted)
        text, chart = get_cards(run["start"].task)
        print(f"a file with text                {len(text.get()) / 1000:8,.0f} KB")
        print(f"a file with a chart             {len(chart.get()) / 1000:8,.0f} KB")


def main() -> None:
    """Measure all of it."""
    of_an_attempt()
    of_files()
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(of_a_run(Path(folder)))
        asyncio.run(of_a_refresh(Path(folder)))
        asyncio.run(files_of_a_run(Path(folder)))


if __name__ == "__main__":
    main()
