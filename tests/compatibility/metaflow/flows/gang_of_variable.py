"""The size of a gang is an artifact."""

from metaflow import FlowSpec, current, parallel, step


class GangOfVariableFlow(FlowSpec):
    @step
    def start(self):
        self.size = 2
        self.next(self.node, num_parallel=self.size)

    @parallel
    @step
    def node(self):
        self.place = current.parallel.node_index
        self.next(self.join)

    @step
    def join(self, inputs):
        self.places = sorted(each.place for each in inputs)
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    GangOfVariableFlow()
