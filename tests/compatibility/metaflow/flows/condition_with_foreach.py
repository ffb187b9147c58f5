"""Cases cannot be combined with a foreach."""

from metaflow import FlowSpec, step


class ConditionWithForeachFlow(FlowSpec):
    @step
    def start(self):
        self.kind = "a"
        self.items = [1]
        self.next({"a": self.one, "b": self.end}, condition="kind", foreach="items")

    @step
    def one(self):
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    ConditionWithForeachFlow()
