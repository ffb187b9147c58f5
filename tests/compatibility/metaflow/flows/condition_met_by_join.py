"""Ways of a condition alone do not meet in a join."""

from metaflow import FlowSpec, step


class ConditionMetByJoinFlow(FlowSpec):
    @step
    def start(self):
        self.kind = "a"
        self.next({"a": self.one, "b": self.two}, condition="kind")

    @step
    def one(self):
        self.next(self.join)

    @step
    def two(self):
        self.next(self.join)

    @step
    def join(self, inputs):
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    ConditionMetByJoinFlow()
