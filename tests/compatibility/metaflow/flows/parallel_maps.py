"""Functions that run in processes of a step."""

from metaflow import FlowSpec, parallel_imap_unordered, parallel_map, step


class ParallelMapsFlow(FlowSpec):
    @step
    def start(self):
        offset = 10
        self.squares = parallel_map(lambda number: number**2 + offset, [1, 2, 3])
        self.few = parallel_map(str, range(5), max_parallel=2)
        self.unordered = sorted(parallel_imap_unordered(abs, [-1, 2]))
        self.nothing = parallel_map(str, [])
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    ParallelMapsFlow()
