"""The artifact names a case that there is not."""

from metaflow import FlowSpec, step


class ConditionUnknownFlow(FlowSpec):
    @step
    def start(self):
        self.kind = "hot"
        self.next({"warm": self.warm, "cold": self.cold}, condition="kind")

    @step
    def warm(self):
        self.next(self.end)

    @step
    def cold(self):
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    ConditionUnknownFlow()
