"""Artifacts of joins are read by the names of the steps before."""

from metaflow import FlowSpec, step


class DataOfJoinedFlow(FlowSpec):
    @step
    def start(self):
        self.items = [3, 1]
        self.next(self.item, foreach="items")

    @step
    def item(self):
        self.doubled = self.input * 2
        self.next(self.join)

    @step
    def join(self, inputs):
        self.best = max(inputs, key=lambda each: each.doubled).input
        self.pairs = [(each.index, each.input, each.doubled) for each in inputs]
        self.items_of_first = inputs[0].items
        self.next(self.end)

    @step
    def end(self):
        pass


def look(run):
    return {"each": sorted(task.data.doubled for task in run["item"])}


if __name__ == "__main__":
    DataOfJoinedFlow()
