"""A function that fails in its process fails the step."""

from metaflow import FlowSpec, parallel_map, step


class ParallelMapFailsFlow(FlowSpec):
    @step
    def start(self):
        self.shares = parallel_map(lambda number: 1 // number, [1, 0])
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    ParallelMapFailsFlow()
