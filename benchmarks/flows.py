"""The flows that the benchmarks run."""

from __future__ import annotations

import time
from pathlib import Path

from asyncflow import FlowSpec, Parameter, step
from asyncflow.flow.join_inputs import Inputs


class NoOps(FlowSpec):
    """One foreach of tasks that do nothing."""

    width = Parameter("width", default=1000)

    @step
    def start(self) -> None:
        """Fan out."""
        self.numbers = range(self.width)
        self.next(self.work, foreach="numbers")

    @step
    def work(self) -> None:
        """What is measured."""
        self.next(self.join)

    @step
    def join(self, inputs: Inputs) -> None:
        """Count the tasks."""
        self.count = len(inputs)
        self.next(self.end)

    @step
    def end(self) -> None:
        """Nothing is left to do."""


class Typical(FlowSpec):
    """The same, each task reading three parameters and its item, and making two artifacts."""

    width = Parameter("width", default=1000)
    rate = Parameter("rate", default=0.5)
    title = Parameter("title", default="some words")

    @step
    def start(self) -> None:
        """Fan out."""
        self.numbers = list(range(self.width))
        self.next(self.work, foreach="numbers")

    @step
    def work(self) -> None:
        """What is measured."""
        number: int = self.input
        self.score = number * self.rate + self.width
        self.label = f"{self.title} {number}"
        self.next(self.join)

    @step
    def join(self, inputs: Inputs) -> None:
        """Count the tasks."""
        self.count = len(inputs)
        self.next(self.end)

    @step
    def end(self) -> None:
        """Nothing is left to do."""


class Artifacts(FlowSpec):
    """The same, each task making an artifact of 20 KiB."""

    width = Parameter("width", default=1000)

    @step
    def start(self) -> None:
        """Fan out."""
        self.numbers = range(self.width)
        self.next(self.work, foreach="numbers")

    @step
    def work(self) -> None:
        """What is measured."""
        self.payload = self.input.to_bytes(8, "little") * 2560
        self.next(self.join)

    @step
    def join(self, inputs: Inputs) -> None:
        """Count the tasks."""
        self.count = len(inputs)
        self.next(self.end)

    @step
    def end(self) -> None:
        """Nothing is left to do."""


class Lasting(Artifacts):
    """The same, each task taking 5 ms in which it needs no CPU."""

    @step
    def work(self) -> None:
        """What is measured."""
        time.sleep(0.005)
        self.payload = self.input.to_bytes(8, "little") * 2560
        self.next(self.join)


class Talkative(FlowSpec):
    """The same, each task printing five lines."""

    width = Parameter("width", default=1000)

    @step
    def start(self) -> None:
        """Fan out."""
        self.numbers = range(self.width)
        self.next(self.work, foreach="numbers")

    @step
    def work(self) -> None:
        """What is measured."""
        for line in range(5):
            print(f"line {line} of a task's output, about as long as they are")
        self.next(self.join)

    @step
    def join(self, inputs: Inputs) -> None:
        """Count the tasks."""
        self.count = len(inputs)
        self.next(self.end)

    @step
    def end(self) -> None:
        """Nothing is left to do."""


class Unfinished(FlowSpec):
    """One foreach whose join fails until a file is there."""

    width = Parameter("width", default=1000)
    mended = Parameter("mended", required=True, type=str)

    @step
    def start(self) -> None:
        """Fan out."""
        self.numbers = range(self.width)
        self.next(self.work, foreach="numbers")

    @step
    def work(self) -> None:
        """What a resume takes over."""
        self.square = self.input**2
        self.next(self.join)

    @step
    def join(self, inputs: Inputs) -> None:
        """What it runs."""
        if not Path(str(self.mended)).exists():
            raise FileNotFoundError
        self.count = len(inputs)
        self.next(self.end)

    @step
    def end(self) -> None:
        """Nothing is left to do."""


class Turns(FlowSpec):
    """One step, repeated by a condition."""

    turns = Parameter("turns", default=1000)

    @step
    def start(self) -> None:
        """Begin to count."""
        self.done = 0
        self.next(self.turn)

    @step
    def turn(self) -> None:
        """What is measured."""
        self.done += 1
        self.again = self.done < self.turns
        self.next({True: self.turn, False: self.end}, condition="again")

    @step
    def end(self) -> None:
        """Nothing is left to do."""
