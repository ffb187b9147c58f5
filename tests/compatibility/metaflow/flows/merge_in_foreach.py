"""Equal values of all items are merged."""

from metaflow import FlowSpec, step


class MergeInForeachFlow(FlowSpec):
    @step
    def start(self):
        self.kept = {"a": [1]}
        self.items = [1, 2, 3]
        self.next(self.item, foreach="items")

    @step
    def item(self):
        self.parity = "a number"
        self.own = self.input
        self.next(self.join)

    @step
    def join(self, inputs):
        self.merge_artifacts(inputs, exclude=["own"])
        self.next(self.end)

    @step
    def end(self):
        self.seen = (self.kept, self.items, self.parity)


if __name__ == "__main__":
    MergeInForeachFlow()
