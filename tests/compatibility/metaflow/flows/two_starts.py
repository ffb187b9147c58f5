"""Two first steps are refused."""

from metaflow import FlowSpec, step


class TwoStartsFlow(FlowSpec):
    @step(start=True)
    def begin(self):
        self.next(self.end)

    @step
    def start(self):
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    TwoStartsFlow()
