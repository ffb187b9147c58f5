"""A foreach over a generator."""

from metaflow import FlowSpec, step


class ForeachGeneratorFlow(FlowSpec):
    @step
    def start(self):
        self.items = (number for number in range(3))
        self.next(self.item, foreach="items")

    @step
    def item(self):
        self.got = self.input
        self.next(self.join)

    @step
    def join(self, inputs):
        self.got = [each.got for each in inputs]
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    ForeachGeneratorFlow()
