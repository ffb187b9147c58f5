"""What is run while a process is killed: each scenario has a flow and the answer to come out.

Every step notes that it was run, with the time, so that one that is run again is found out.
"""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from asyncflow import FlowSpec, card, catch, current, limit, retry, step, timeout
from asyncflow.cards import Markdown

BLOB = 300_000  # above `BLOB_BYTES`
SEGMENT = 5_000  # above `INLINE_BYTES`


def append(variable: str, line: str) -> None:
    """Add a line to the file that an environment variable names, in one write, with the time."""
    data = f"{time.monotonic_ns()} {line}\n".encode()
    descriptor = os.open(os.environ[variable], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(descriptor, data)
    finally:
        os.close(descriptor)


def note(flow: FlowSpec) -> None:
    """Tell that a task is being run."""
    path = [index for index, _, _ in flow.foreach_stack() or ()]
    append("RAN", f"{current.step_name} {path}")


class Linear(FlowSpec):
    """A value of each size: inline, in a segment, in a blob."""

    @step
    def start(self):
        note(self)
        self.inline, self.segment, self.blob = 1, b"2" * SEGMENT, b"3" * BLOB
        self.next(self.middle)

    @step
    def middle(self):
        note(self)
        print("in the middle")
        self.segment += b"4" * SEGMENT
        self.blob += b"5"
        self.next(self.end)

    @step
    def end(self):
        note(self)
        self.answer = self.inline, len(self.segment), len(self.blob)


class Branch(FlowSpec):
    """Two branches, of which one is a step longer."""

    @step
    def start(self):
        note(self)
        self.common = b"c" * SEGMENT
        self.next(self.left, self.right)

    @step
    def left(self):
        note(self)
        self.value = b"l" * SEGMENT
        self.next(self.join)

    @step
    def right(self):
        note(self)
        self.value = b"r" * SEGMENT
        self.next(self.further)

    @step
    def further(self):
        note(self)
        self.next(self.join)

    @step
    def join(self, inputs):
        note(self)
        self.values = inputs.left.value[:1] + inputs.further.value[:1]
        self.merge_artifacts(inputs, exclude=["value"])
        self.next(self.end)

    @step
    def end(self):
        note(self)
        self.answer = self.values, len(self.common)


class Foreach(FlowSpec):
    """A foreach, some of whose values lie in segments and blobs."""

    width = 6

    @step
    def start(self):
        note(self)
        self.items = list(range(self.width))
        self.next(self.work, foreach="items")

    @step
    def work(self):
        note(self)
        self.square = self.input**2
        self.value = bytes([self.input]) * (SEGMENT if self.input % 3 else BLOB)
        self.next(self.join)

    @step
    def join(self, inputs):
        note(self)
        self.answer = sum(task.square + task.value[-1] for task in inputs)
        self.next(self.end)

    @step
    def end(self):
        note(self)


class Stream(Foreach):
    """A foreach over a generator, which waits for the first task and then ends with a chunk."""

    @retry(times=1000, seconds=0)
    @step
    def start(self):
        note(self)
        self.items = self.yielded()
        self.next(self.work, foreach="items")

    def yielded(self):
        """Yield numbers, the first one for some time alone."""
        for number in range(self.width):
            yield number
            if not number:
                time.sleep(0.05)


class Early(Foreach):
    """An async join that begins with the first input, and reads the others as they arrive."""

    @step
    def work(self):
        note(self)
        self.square = self.input**2
        self.value = bytes([self.input]) * (SEGMENT if self.input % 3 else BLOB)
        time.sleep(0.02 * self.input)
        self.next(self.join)

    @step
    async def join(self, inputs):
        note(self)
        self.answer = sum([task.square + task.value[-1] async for task in inputs])
        self.next(self.end)


class Join(Foreach):
    """A join with so many inputs that they are written to a file; the child lowers the limit."""

    width = 12


class Async(FlowSpec):
    """Async tasks, side by side on one worker."""

    @step
    def start(self):
        note(self)
        self.items = list(range(5))
        self.next(self.work, foreach="items")

    @step
    async def work(self):
        note(self)
        print(f"working on {self.input}")
        await asyncio.sleep(0.005 * self.input)
        self.square, self.value = self.input**2, b"v" * SEGMENT
        if self.input % 2:  # then it is stored in a thread
            self.blob = bytes([self.input]) * BLOB
        self.next(self.join)

    @step
    def join(self, inputs):
        note(self)
        self.answer = sum(task.square for task in inputs)
        self.next(self.end)

    @step
    def end(self):
        note(self)


class Nested(FlowSpec):
    """A foreach in a foreach."""

    @step
    def start(self):
        note(self)
        self.letters = ["a", "b"]
        self.next(self.spread, foreach="letters")

    @step
    def spread(self):
        note(self)
        self.letter = self.input
        self.numbers = [1, 2]
        self.next(self.work, foreach="numbers")

    @step
    def work(self):
        note(self)
        self.cell = self.letter * self.input
        self.value = b"v" * SEGMENT
        self.next(self.inner)

    @step
    def inner(self, inputs):
        note(self)
        self.row = [task.cell for task in inputs]
        self.next(self.outer)

    @step
    def outer(self, inputs):
        note(self)
        self.answer = [task.row for task in inputs]
        self.next(self.end)

    @step
    def end(self):
        note(self)


class Retry(FlowSpec):
    """Tasks whose first attempt fails."""

    @step
    def start(self):
        note(self)
        self.items = [1, 2, 3]
        self.next(self.work, foreach="items")

    @retry(times=3, seconds=0.01)
    @step
    def work(self):
        note(self)
        print("attempt", current.attempt)
        if current.attempt == 0:
            raise ValueError(self.input)
        self.double = 2 * self.input
        self.value = b"v" * SEGMENT
        self.next(self.join)

    @step
    def join(self, inputs):
        note(self)
        self.answer = sum(task.double for task in inputs)
        self.next(self.end)

    @step
    def end(self):
        note(self)


class Catch(FlowSpec):
    """A task that fails for good, and is caught."""

    @step
    def start(self):
        note(self)
        self.items = [1, 0, 2]
        self.next(self.work, foreach="items")

    @catch(var="failure", print_exception=False)
    @retry(times=1, seconds=0)  # for those that lose their worker
    @step
    def work(self):
        note(self)
        self.value = b"v" * SEGMENT
        self.result = 10 // self.input
        self.next(self.join)

    @step
    def join(self, inputs):
        note(self)
        self.answer = [getattr(task, "result", None) for task in inputs]
        self.next(self.end)

    @step
    def end(self):
        note(self)


class Timeout(FlowSpec):
    """A task whose first attempt takes too long."""

    @step
    def start(self):
        note(self)
        self.next(self.work)

    @retry(times=3, seconds=0)
    @timeout(seconds=0.1)
    @step
    def work(self):
        note(self)
        if current.attempt == 0:
            time.sleep(30)
        self.value = b"v" * SEGMENT
        self.next(self.end)

    @step
    def end(self):
        note(self)
        self.answer = len(self.value)


class Resumed(FlowSpec):
    """Fails in two of its tasks until a file is there."""

    @step
    def start(self):
        note(self)
        self.items = list(range(6))
        self.next(self.work, foreach="items")

    @step
    def work(self):
        note(self)
        print("item", self.input)
        if self.input in {4, 5} and not Path(os.environ["MENDED"]).exists():
            time.sleep(0.05)  # the others have ended
            raise ValueError
        self.square, self.value = self.input**2, b"v" * SEGMENT
        self.next(self.join)

    @step
    def join(self, inputs):
        note(self)
        self.answer = sum(task.square for task in inputs)
        self.next(self.end)

    @step
    def end(self):
        note(self)


class Cancelled(FlowSpec):
    """Is cancelled when some of its tasks have ended."""

    @step
    def start(self):
        note(self)
        self.items = list(range(8))
        self.next(self.work, foreach="items")

    @step
    def work(self):
        note(self)
        time.sleep(0.01)
        self.square, self.value = self.input**2, b"v" * SEGMENT
        self.next(self.join)

    @step
    def join(self, inputs):
        note(self)
        self.answer = sum(task.square for task in inputs)
        self.next(self.end)

    @step
    def end(self):
        note(self)


class Limited(FlowSpec):
    """Tasks under limits with names."""

    @step
    def start(self):
        note(self)
        self.items = [0, 1, 2]
        self.next(self.work, foreach="items")

    @limit("one")
    @limit("rate", per_second=100)
    @step
    def work(self):
        note(self)
        self.item = self.input
        self.next(self.join)

    @step
    def join(self, inputs):
        note(self)
        self.answer = sum(task.item for task in inputs)
        self.next(self.end)

    @step
    def end(self):
        note(self)


class Tidied(FlowSpec):
    """Goes on while its store is tidied up, and puts a value anew that lay about unneeded."""

    @step
    def start(self):
        note(self)
        self.items = list(range(4))
        self.next(self.work, foreach="items")

    @step
    def work(self):
        note(self)
        self.square, self.value = self.input**2, b"v" * SEGMENT
        self.blob = b"3" * BLOB if self.input == 1 else bytes([self.input]) * BLOB
        self.next(self.join)

    @step
    def join(self, inputs):
        note(self)
        while not Path(os.environ["TIDIED"]).exists():
            time.sleep(0.005)
        self.answer = sum(task.square + len(task.blob) for task in inputs)
        self.next(self.end)

    @step
    def end(self):
        note(self)


class Shown(FlowSpec):
    """Cards that are told while their tasks run, and kept with the result."""

    @step
    def start(self):
        note(self)
        self.items = [1, 2, 3]
        self.next(self.work, foreach="items")

    @card(type="blank", refresh_interval=0)
    @step
    def work(self):
        note(self)
        for number in range(3):
            current.card.append(Markdown(f"{number} of {self.input}" * SEGMENT))
            current.card.refresh()
        self.double = 2 * self.input
        self.next(self.join)

    @step
    def join(self, inputs):
        note(self)
        self.answer = sum(task.double for task in inputs)
        self.next(self.end)

    @step
    def end(self):
        note(self)


class Storm(FlowSpec):
    """Some thousand short tasks, which lose their workers again and again."""

    width = 3000

    @step
    def start(self):
        note(self)
        self.items = list(range(self.width))
        self.next(self.work, foreach="items")

    @retry(times=1000, seconds=0)
    @step
    def work(self):
        note(self)
        time.sleep(0.001)
        self.square = self.input**2
        if self.input % 10 == 0:
            self.value = b"v" * (SEGMENT if self.input % 100 else BLOB)
        self.next(self.join)

    @retry(times=1000, seconds=0)
    @step
    def join(self, inputs):
        note(self)
        self.answer = sum(task.square for task in inputs)
        self.next(self.end)

    @retry(times=1000, seconds=0)
    @step
    def end(self):
        note(self)


class Scattered(Storm):
    """The same on nodes, each of which takes some time to start."""

    width = 300


class Told(Cancelled):
    """Waits to be cancelled by a message, unless it is resumed."""

    @step
    def join(self, inputs):
        note(self)
        if current.origin_run_id is None:
            time.sleep(60)
        self.answer = sum(task.square for task in inputs)
        self.next(self.end)


@dataclass(frozen=True, slots=True)
class Scenario:
    """A flow, how it is run, and what must come of it."""

    flow: type[FlowSpec]
    answer: Any
    settings: dict[str, Any] = field(default_factory=dict)
    cancel_after: int = 0
    """After how many finished tasks the run is cancelled; 0 for never."""
    key: str = ""
    """The key of the run, if it has one."""
    by_message: bool = False
    """Whether it is cancelled through its mailbox, as by another process."""
    resumes: bool = False
    """Whether a failed run stands before, and what is killed is the process that resumes it."""
    tidies: bool = False
    """Whether another process, of the role `gc`, removes runs and collects garbage meanwhile."""
    nodes: int = 0
    """On how many nodes behind sockets its tasks run; 0 for workers of the engine's own."""


_SQUARES = sum(n * n for n in range(6))

SCENARIOS = {
    "linear": Scenario(Linear, (1, 2 * SEGMENT, BLOB + 1)),
    "branch": Scenario(Branch, (b"lr", SEGMENT)),
    "foreach": Scenario(Foreach, sum(n * n + n for n in range(6))),
    "stream": Scenario(Stream, sum(n * n + n for n in range(6))),
    "early": Scenario(Early, sum(n * n + n for n in range(6))),
    "nested": Scenario(Nested, [["a", "aa"], ["b", "bb"]]),
    "join": Scenario(Join, sum(n * n + n for n in range(12))),
    "async": Scenario(Async, sum(n * n for n in range(5))),
    "retry": Scenario(Retry, 12),
    "catch": Scenario(Catch, [10, None, 5]),
    "timeout": Scenario(Timeout, SEGMENT),
    "resume": Scenario(Resumed, _SQUARES, resumes=True),
    "cancel": Scenario(Cancelled, sum(n * n for n in range(8)), cancel_after=3),
    "message": Scenario(
        Told, sum(n * n for n in range(8)), cancel_after=3, by_message=True, key="only-one"
    ),
    "limit": Scenario(Limited, 3),
    "power": Scenario(Linear, (1, 2 * SEGMENT, BLOB + 1), settings={"durability": "power"}),
    "cards": Scenario(Shown, 12),
    "gc": Scenario(Tidied, 14 + 4 * BLOB, tidies=True),
}

STORMS = {
    "storm": Scenario(Storm, sum(n * n for n in range(Storm.width))),
    "nodes": Scenario(Scattered, sum(n * n for n in range(Scattered.width)), nodes=3),
}
"""What is killed at any time, not at commit points."""
