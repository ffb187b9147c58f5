"""A foreach over an empty list."""

from metaflow import FlowSpec, step


class ForeachNothingFlow(FlowSpec):
    @step
    def start(self):
        self.items = []
        self.next(self.item, foreach="items")

    @step
    def item(self):
        self.next(self.join)

    @step
    def join(self, inputs):
        self.got = [each.input for each in inputs]
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    ForeachNothingFlow()
