"""A flow that stores values of a size that is asked for, and answers how much it was."""

from __future__ import annotations

import os
import time
from pathlib import Path

from asyncflow import FlowSpec, Parameter, step

READY = 3


class Storing(FlowSpec):
    """Fills a disk, in one of the places where values lie.

    Where there is a file to wait for, its first tasks go on, and the others wait until it is there.
    """

    size = Parameter("size", default=300_000)
    width = Parameter("width", default=12)

    @step
    def start(self):
        self.items = list(range(self.width))
        self.next(self.work, foreach="items")

    @step
    def work(self):
        go = os.environ.get("GO")
        while go and self.input >= READY and not Path(go).exists():
            time.sleep(0.01)
        self.value = os.urandom(self.size)
        self.next(self.join)

    @step
    def join(self, inputs):
        self.answer = sum(len(task.value) for task in inputs)
        self.next(self.end)

    @step
    def end(self):
        print(f"answer {self.answer}")
