"""The step of a gang must be marked with `@parallel`."""

from metaflow import FlowSpec, step


class GangWithoutParallelFlow(FlowSpec):
    @step
    def start(self):
        self.next(self.node, num_parallel=2)

    @step
    def node(self):
        self.next(self.join)

    @step
    def join(self, inputs):
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    GangWithoutParallelFlow()
