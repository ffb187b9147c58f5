"""What it costs to know of each task its item, what it used, and when it ran.

Times are of the processor, so that a busy machine changes them little. Beside each stands what the
same task costs anyway: encoding its item, its entry in the index, reading its item.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asyncflow.client import Run
from asyncflow.codec.items import ItemsEncoder
from asyncflow.codec.short_text import ShortTexts
from asyncflow.events.packing import pack_event
from asyncflow.events.types import TaskStarted, TaskSucceeded, from_microseconds
from asyncflow.flow.graph import Graph
from asyncflow.flow.node import Node
from asyncflow.store.artifacts import ArtifactReader, ArtifactWriter
from asyncflow.store.layout import Layout
from asyncflow.store.local_store import LocalRun
from asyncflow.store.run_times import TIMES, AttemptState, AttemptTable, times_file
from asyncflow.store.task_table import TaskTable
from asyncflow.workers.process.resource_usage import UsageMeter
from tests.support.store_files import reader_of, writer_of
from tests.support.written_runs import RunWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MANY = 100_000
SOME = 20_000
RUN = "1795472682985927"
GRAPH = Graph(
    "Wide",
    [
        Node("start", ("work",), foreach="items"),
        Node("work", ("join",)),
        Node("join", ("end",), is_join=True),
        Node("end"),
    ],
)


@dataclass
class Order:
    """An item with fields."""

    number: int
    customer: str


class Own:
    """An item with a text of its own."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __repr__(self) -> str:
        return f"order {self.number}"


def each(count: int, function: Callable[[int], object]) -> float:
    """Microseconds of the processor for one call."""
    began = time.process_time()
    for number in range(count):
        function(number)
    return (time.process_time() - began) / count * 1e6


def texts() -> None:
    """The text of an item, beside encoding it."""
    kinds: dict[str, Callable[[int], Any]] = {
        "int": lambda number: number,
        "str": lambda number: f"file-{number:06}.csv",
        "tuple": lambda number: (number, "a"),
        "dict": lambda number: {"id": number, "name": "x"},
        "dataclass": lambda number: Order(number, "x"),
        "own __repr__": Own,
    }
    print("an item           its text   encoding it and all")
    for name, make in kinds.items():
        items = [make(number) for number in range(SOME)]
        short, encoder = ShortTexts(), ItemsEncoder()
        text = each(SOME, lambda at, items=items, short=short: short.of(items[at]))  # type: ignore[misc]  # defaults bind the loop's values
        whole = each(SOME, lambda at, items=items, to=encoder: list(to.add(items[at])))  # type: ignore[misc]  # defaults bind the loop's values
        print(f"{name:15} {text:8.1f} µs {whole:12.1f} µs")


def reading(folder: Path) -> None:
    """A worker reads the text, and then the item."""
    layout = Layout.open(folder, create=True)
    layout.run_dir("Wide", "1").mkdir(parents=True)
    writer: ArtifactWriter = writer_of(layout, "Wide", "1", "w1")
    _, ref = writer.put_items([f"file-{number:06}.csv" for number in range(MANY)])
    reader: ArtifactReader = reader_of(layout, "Wide")
    both = each(SOME, lambda at: (reader.item_text(ref, at), reader.load_item(ref, at)))
    alone = each(SOME, lambda at: reader.load_item(ref, at))
    print(f"reading an item   {alone:.1f} µs, with its text before {both:.1f} µs")


def usage() -> None:
    """Processor time and memory of a task."""
    meter = UsageMeter()

    def measure(_: int) -> None:
        meter.begin()
        meter.end()

    def measure_anew(_: int) -> None:
        meter.note_other_work()  # as after an import: the peak is set back
        measure(0)

    print(f"what a task used  {each(SOME, measure):.1f} µs", end="")
    print(f", {each(SOME, measure_anew):.1f} µs if the peak has to be set back")


def size() -> None:
    """Bytes of a task in the journal."""
    about: dict[str, Any] = {"flow": "Wide", "run_id": RUN, "seq": 100_000}
    about |= {"time": from_microseconds(1_795_472_682_985_927), "step": "work", "task_id": "50000"}
    about |= {"attempt": 0, "path": (49_998,), "pid": 12_345}
    plain = len(pack_event(TaskStarted(**about))) + len(pack_event(TaskSucceeded(**about)))
    began = pack_event(TaskStarted(**about, item="'file-000123.csv'"))
    ended = pack_event(TaskSucceeded(**about, cpu_seconds=0.123456, peak_memory=50_000_000))
    print(f"journal           {len(began) + len(ended) - plain} bytes more for a task")


def table() -> None:
    """The times of a task in the engine, beside its entry in the index."""
    attempts, index = AttemptTable(), TaskTable()

    def note(number: int) -> None:
        attempts.begin(1, number + 1, 0, number, number, "'file-000123.csv'")
        attempts.end((1, number + 1, 0, number), number, int(AttemptState.SUCCEEDED), "", 0.1)

    def enter(number: int) -> None:
        index.begin(number + 1, number, 1, 1, 0, number)
        index.end(number + 1, number, 1, 2, 0, number)

    took, beside = each(MANY, note), each(MANY, enter)
    size = len(attempts.dump(1)) / MANY
    print(f"times of a task   {took:.1f} µs, {size:.0f} bytes; beside its entry of {beside:.1f} µs")


def opening(folder: Path) -> None:
    """The attempts of a run with 100,000 tasks, from its journal and from its file of times."""
    writer = RunWriter(folder, "Wide", RUN, GRAPH)
    task = writer.start("start")
    writer.succeed(task, fanout=MANY)
    for number in range(MANY):
        writer.run("work", (number,))
    writer.run("join")
    writer.run("end")
    writer.finish()
    took = []
    for _ in range(2):
        record = Run(f"Wide/{RUN}", store=folder)._record  # noqa: SLF001 - what the page asks
        began = time.process_time()
        attempts = record.tasks.attempts()
        attempts.columns()
        took.append(time.process_time() - began)
        files = times_file(attempts, record.summary().journal_bytes)
        LocalRun.at(writer.run_dir).put_files(files, lambda: None)
    size = (writer.run_dir / TIMES).stat().st_size / 1e6
    print(
        f"{MANY:,} tasks     {took[0] * 1000:.0f} ms from the journal, "
        f"{took[1] * 1000:.0f} ms from a file of {size:.1f} MB: {took[0] / took[1]:.0f} to 1"
    )


def main(parts: Sequence[Callable[[], None]] = (texts, usage, size, table)) -> None:
    """Run all of it."""
    for part in parts:
        part()
    with tempfile.TemporaryDirectory() as folder:
        reading(Path(folder, "items"))
        opening(Path(folder, "times"))


if __name__ == "__main__":
    main()
