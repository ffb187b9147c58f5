"""The ways of a foreach's items meet nowhere but in its join."""

from metaflow import FlowSpec, step


class ConditionToJoinFlow(FlowSpec):
    @step
    def start(self):
        self.numbers = [3, 4, 5]
        self.next(self.sort, foreach="numbers")

    @step
    def sort(self):
        self.kind = "even" if self.input % 2 == 0 else "odd"
        self.next({"even": self.even, "odd": self.odd}, condition="kind")

    @step
    def even(self):
        self.half = self.input // 2
        self.next(self.join)

    @step
    def odd(self):
        self.half = (self.input + 1) // 2
        self.next(self.join)

    @step
    def join(self, inputs):
        self.halves = [each.half for each in inputs]
        self.kinds = [each.kind for each in inputs]
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    ConditionToJoinFlow()
