"""A foreach over what is no collection."""

from metaflow import FlowSpec, step


class ForeachNumberFlow(FlowSpec):
    @step
    def start(self):
        self.items = 3
        self.next(self.item, foreach="items")

    @step
    def item(self):
        self.next(self.join)

    @step
    def join(self, inputs):
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    ForeachNumberFlow()
