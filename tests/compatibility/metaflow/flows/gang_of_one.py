"""A gang of one, and a merge of what is the same in all."""

from metaflow import FlowSpec, current, parallel, step


class GangOfOneFlow(FlowSpec):
    @step
    def start(self):
        self.base = 1
        self.next(self.node, num_parallel=1)

    @parallel
    @step
    def node(self):
        self.own = current.parallel.num_nodes
        self.next(self.join)

    @step
    def join(self, inputs):
        self.merge_artifacts(inputs)
        self.count = sum(1 for _ in inputs)
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    GangOfOneFlow()
