"""The flow of the golden stores: a value of every encoding in every place, output, a failure."""

from __future__ import annotations

import os
import sys

from asyncflow import FlowSpec, Parameter, retry, step


class Thing:
    """An object of the flow's own class."""

    def __init__(self, name):
        self.name = name


class GoldenFlow(FlowSpec):
    """Leaves one of everything in the store."""

    width = Parameter("width", default=3)
    constant = ("class", "level")

    @step
    def start(self):
        print("begin")
        print("caution", file=sys.stderr)
        self.tiny = {"a": 1, "b": [1.5, None, "é"]}
        self.middling = bytes(range(256)) * 16
        self.large = bytes(300_000)
        self.thing = Thing("golden")
        self.items = [{"n": number} for number in range(self.width)]
        self.next(self.work, foreach="items")

    @retry(times=1, seconds=0)
    @step
    def work(self):
        print(f"item {self.input['n']}")
        self.square = self.input["n"] ** 2
        if self.input["n"] == 1 and os.environ.get("GOLDEN_FAILS"):
            message = "as the golden store wants it"
            raise ValueError(message)
        self.next(self.join)

    @step
    def join(self, inputs):
        self.squares = [task.square for task in inputs]
        self.merge_artifacts(inputs, exclude=["square"])
        self.next(self.end)

    @step
    def end(self):
        pass
