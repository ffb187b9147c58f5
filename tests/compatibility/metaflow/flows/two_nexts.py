"""Two calls of `self.next`."""

from metaflow import FlowSpec, step


class TwoNextsFlow(FlowSpec):
    @step
    def start(self):
        self.next(self.end)
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    TwoNextsFlow()
