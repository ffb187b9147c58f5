"""A gang for each item."""

from metaflow import FlowSpec, current, parallel, step


class GangInForeachFlow(FlowSpec):
    @step
    def start(self):
        self.items = ["a", "b"]
        self.next(self.item, foreach="items")

    @step
    def item(self):
        self.mark = self.input
        self.next(self.node, num_parallel=2)

    @parallel
    @step
    def node(self):
        self.said = f"{self.mark}{current.parallel.node_index}"
        self.next(self.gang_join)

    @step
    def gang_join(self, inputs):
        self.said = sorted(each.said for each in inputs)
        self.next(self.join)

    @step
    def join(self, inputs):
        self.said = [each.said for each in inputs]
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    GangInForeachFlow()
