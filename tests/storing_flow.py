"""A flow that stores values of a size that is asked for, and answers how much it was."""

from __future__ import annotations

import os
import time

from asyncflow import FlowSpec, Parameter, step


class Storing(FlowSpec):
    """Fills a disk, in one of the places where values lie."""

    size = Parameter("size", default=300_000)
    width = Parameter("width", default=12)
    pause = Parameter("pause", default=0.0)

    @step
    def start(self):
        self.items = list(range(self.width))
        self.next(self.work, foreach="items")

    @step
    def work(self):
        time.sleep(self.pause)
        self.value = os.urandom(self.size)
        self.next(self.join)

    @step
    def join(self, inputs):
        self.answer = sum(len(task.value) for task in inputs)
        self.next(self.end)

    @step
    def end(self):
        print(f"answer {self.answer}")
