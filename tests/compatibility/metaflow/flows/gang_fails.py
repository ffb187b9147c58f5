"""One of a gang fails."""

from metaflow import FlowSpec, current, parallel, step


class GangFailsFlow(FlowSpec):
    @step
    def start(self):
        self.next(self.node, num_parallel=2)

    @parallel
    @step
    def node(self):
        if current.parallel.node_index == 1:
            raise ValueError("the second")
        self.next(self.join)

    @step
    def join(self, inputs):
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    GangFailsFlow()
