"""A run is resumed from a condition that goes the other way now."""

from metaflow import FlowSpec, current, step


class ConditionResumedOtherwiseFlow(FlowSpec):
    @step
    def start(self):
        self.base = 1
        self.next(self.choose)

    @step
    def choose(self):
        self.kind = "a" if current.origin_run_id is None else "b"
        self.next({"a": self.one, "b": self.two}, condition="kind")

    @step
    def one(self):
        self.way = "one"
        self.next(self.met)

    @step
    def two(self):
        self.way = "two"
        self.next(self.met)

    @step
    def met(self):
        self.seen = (self.base, self.way)
        self.next(self.end)

    @step
    def end(self):
        pass


def look(run):
    return {"steps": sorted(step.id for step in run)}


if __name__ == "__main__":
    ConditionResumedOtherwiseFlow()
