"""A run is resumed within a case."""

from metaflow import FlowSpec, current, step


class ConditionResumedFlow(FlowSpec):
    @step
    def start(self):
        self.kind = "b"
        self.next({"a": self.one, "b": self.two}, condition="kind")

    @step
    def one(self):
        self.next(self.met)

    @step
    def two(self):
        self.resumed = current.origin_run_id is not None
        if not self.resumed:
            raise ValueError("once")
        self.next(self.met)

    @step
    def met(self):
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    ConditionResumedFlow()
