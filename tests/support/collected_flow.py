"""A flow whose tasks store values that others have stored before, or are just deleting."""

from __future__ import annotations

from asyncflow import FlowSpec, step


class Collected(FlowSpec):
    """Forty tasks with four different values."""

    @step
    def start(self):
        self.items = list(range(40))
        self.next(self.work, foreach="items")

    @step
    def work(self):
        self.value = b"%02d" % (self.input % 4) * 150_000
        self.next(self.join)

    @step
    def join(self, inputs):
        self.next(self.end)

    @step
    def end(self):
        pass
