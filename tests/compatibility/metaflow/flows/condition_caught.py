"""A step with a condition cannot have its failures caught."""

from metaflow import FlowSpec, catch, step


class ConditionCaughtFlow(FlowSpec):
    @catch(var="problem")
    @step
    def start(self):
        self.kind = "a"
        self.next({"a": self.one, "b": self.end}, condition="kind")

    @step
    def one(self):
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    ConditionCaughtFlow()
