"""The first step of a foreach's items comes again itself."""

from metaflow import FlowSpec, step


class RecursionOfFirstFlow(FlowSpec):
    @step
    def start(self):
        self.wanted = [2, 1]
        self.next(self.turn, foreach="wanted")

    @step
    def turn(self):
        self.done = getattr(self, "done", 0) + 1
        self.more = "no" if self.done >= self.input else "yes"
        self.next({"yes": self.turn, "no": self.join}, condition="more")

    @step
    def join(self, inputs):
        self.counts = [each.done for each in inputs]
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    RecursionOfFirstFlow()
