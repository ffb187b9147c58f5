"""A flow whose last tasks wait for a file, so that a test decides when they end."""

from __future__ import annotations

import os
import time
from pathlib import Path

from asyncflow import FlowSpec, step


class Gated(FlowSpec):
    """Each task notes in the file `RAN` that it has run."""

    @step
    def start(self):
        self.numbers = [*range(6)]
        note("start")
        print("starting")
        self.next(self.square, foreach="numbers")

    @step
    def square(self):
        self.result = self.input**2
        if self.input > 2:
            while not Path(os.environ["GATE"]).exists():
                time.sleep(0.02)
        note(f"square {self.input}")
        self.next(self.join)

    @step
    def join(self, inputs):
        self.results = sorted(each.result for each in inputs)
        note("join")
        self.next(self.end)

    @step
    def end(self):
        print(self.results)


def note(what):
    """Add a line to the file `RAN`."""
    with Path(os.environ["RAN"]).open("a", encoding="utf-8") as file:
        file.write(f"{what}\n")
