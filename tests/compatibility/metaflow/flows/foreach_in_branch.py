"""One branch has a foreach, the other does not."""

from metaflow import FlowSpec, step


class ForeachInBranchFlow(FlowSpec):
    @step
    def start(self):
        self.next(self.many, self.one)

    @step
    def many(self):
        self.items = [1, 2, 3]
        self.next(self.item, foreach="items")

    @step
    def item(self):
        self.square = self.input**2
        self.next(self.many_join)

    @step
    def many_join(self, inputs):
        self.total = sum(each.square for each in inputs)
        self.next(self.join)

    @step
    def one(self):
        self.total = 100
        self.next(self.join)

    @step
    def join(self, inputs):
        self.totals = (inputs.many_join.total, inputs.one.total)
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    ForeachInBranchFlow()
