"""A merge, and another one after further branches."""

from metaflow import FlowSpec, step


class MergedTwiceFlow(FlowSpec):
    @step
    def start(self):
        self.handed_down = "h"
        self.next(self.a, self.b)

    @step
    def a(self):
        self.common = 5
        self.x = 1
        self.only_a = 6
        self.y = 3
        self.next(self.join)

    @step
    def b(self):
        self.common = 5
        self.x = 2
        self.y = 4
        self.next(self.join)

    @step
    def join(self, inputs):
        self.x = inputs.a.x
        self.merge_artifacts(inputs, exclude=["y"])
        self.next(self.again)

    @step
    def again(self):
        self.next(self.c, self.d)

    @step
    def c(self):
        self.conflict = 7
        self.next(self.last_join)

    @step
    def d(self):
        self.conflict = 8
        self.next(self.last_join)

    @step
    def last_join(self, inputs):
        self.merge_artifacts(inputs, include=["handed_down", "common"])
        self.next(self.end)

    @step
    def end(self):
        self.has = [hasattr(self, name) for name in ("only_a", "x", "common", "conflict")]


if __name__ == "__main__":
    MergedTwiceFlow()
