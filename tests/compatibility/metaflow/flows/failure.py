"""A step fails; what follows does not run."""

from metaflow import FlowSpec, step


class FailureFlow(FlowSpec):
    @step
    def start(self):
        self.number = 1
        self.next(self.fails)

    @step
    def fails(self):
        self.share = self.number // 0
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    FailureFlow()
