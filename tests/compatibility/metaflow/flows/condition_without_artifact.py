"""The artifact of a condition is not there."""

from metaflow import FlowSpec, step


class ConditionWithoutArtifactFlow(FlowSpec):
    @step
    def start(self):
        self.next({"a": self.one, "b": self.end}, condition="kind")

    @step
    def one(self):
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    ConditionWithoutArtifactFlow()
