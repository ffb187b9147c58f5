"""Several steps between a foreach and its join."""

from metaflow import FlowSpec, step


class TwoStepsInForeachFlow(FlowSpec):
    @step
    def start(self):
        self.items = [5, 6]
        self.next(self.first, foreach="items")

    @step
    def first(self):
        self.got = [self.input]
        self.next(self.second)

    @step
    def second(self):
        self.got = [*self.got, self.input, self.index]
        self.next(self.join)

    @step
    def join(self, inputs):
        self.got = [each.got for each in inputs]
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    TwoStepsInForeachFlow()
