"""A flow that writes in every way there is, and brings the faults that the environment asks for."""

from __future__ import annotations

from asyncflow import FlowSpec, Parameter, step
from tests.support.file_faults import install_from_environ

install_from_environ()


class Faulty(FlowSpec):
    """Inline values, segment values, blobs, items, output."""

    width = Parameter("width", default=3)
    notes = Parameter("notes", default="n" * 2000)

    @step
    def start(self):
        self.items = list(range(self.width))
        self.blob = bytes(range(256)) * 2000
        self.middling = bytes(20_000)
        self.next(self.work, foreach="items")

    @step
    def work(self):
        print(f"working on {self.input}")
        self.mine = bytes([self.input]) * 5000
        self.next(self.join)

    @step
    def join(self, inputs):
        self.total = sum(sum(task.mine) for task in inputs)
        self.merge_artifacts(inputs, include=["blob"])
        self.next(self.end)

    @step
    def end(self):
        self.check = len(self.blob)
