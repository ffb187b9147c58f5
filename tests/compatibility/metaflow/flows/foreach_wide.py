"""A foreach over more items than Metaflow allows unless it is told."""

from metaflow import FlowSpec, step


class ForeachWideFlow(FlowSpec):
    @step
    def start(self):
        self.items = range(101)
        self.next(self.item, foreach="items")

    @step
    def item(self):
        self.got = self.input
        self.next(self.join)

    @step
    def join(self, inputs):
        self.total = sum(each.got for each in inputs)
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    ForeachWideFlow()
