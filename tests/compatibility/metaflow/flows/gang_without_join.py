"""A gang must be followed by a join."""

from metaflow import FlowSpec, parallel, step


class GangWithoutJoinFlow(FlowSpec):
    @step
    def start(self):
        self.next(self.node, num_parallel=2)

    @parallel
    @step
    def node(self):
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    GangWithoutJoinFlow()
