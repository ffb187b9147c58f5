"""A gang of nobody."""

from metaflow import FlowSpec, parallel, step


class GangOfNoneFlow(FlowSpec):
    @step
    def start(self):
        self.next(self.node, num_parallel=0)

    @parallel
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
    GangOfNoneFlow()
