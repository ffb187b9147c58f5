"""A gang is retried as a whole."""

from metaflow import FlowSpec, current, parallel, retry, step


class GangRetriedFlow(FlowSpec):
    @step
    def start(self):
        self.next(self.node, num_parallel=2)

    @retry(times=1, minutes_between_retries=0)
    @parallel
    @step
    def node(self):
        self.attempt = current.retry_count
        if current.parallel.node_index == 1 and current.retry_count == 0:
            raise ValueError("the second")
        self.next(self.join)

    @step
    def join(self, inputs):
        self.attempts = sorted(each.attempt for each in inputs)
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    GangRetriedFlow()
