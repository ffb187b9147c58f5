"""Branches that are not joined are refused."""

from metaflow import FlowSpec, step


class WithoutJoinFlow(FlowSpec):
    @step
    def start(self):
        self.next(self.a, self.b)

    @step
    def a(self):
        self.next(self.end)

    @step
    def b(self):
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    WithoutJoinFlow()
