"""Each item of a foreach comes again as often as it says."""

from metaflow import FlowSpec, step


class RecursionInForeachFlow(FlowSpec):
    @step
    def start(self):
        self.wanted = [1, 3, 2]
        self.next(self.begin, foreach="wanted")

    @step
    def begin(self):
        self.left = self.input
        self.done = 0
        self.next(self.turn)

    @step
    def turn(self):
        self.left -= 1
        self.done += 1
        self.more = "no" if self.left == 0 else "yes"
        self.place = (self.index, self.input)
        self.next({"yes": self.turn, "no": self.finish}, condition="more")

    @step
    def finish(self):
        self.next(self.join)

    @step
    def join(self, inputs):
        self.counts = [each.done for each in inputs]
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    RecursionInForeachFlow()
