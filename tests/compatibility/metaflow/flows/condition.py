"""One of two steps is chosen by an artifact, and both lead to one plain step."""

from metaflow import FlowSpec, current, step


class ConditionFlow(FlowSpec):
    @step
    def start(self):
        self.kind = "cold"
        self.common = 7
        self.next({"warm": self.warm, "cold": self.cold}, condition="kind")

    @step
    def warm(self):
        self.said = "t-shirt"
        self.next(self.dress)

    @step
    def cold(self):
        self.said = "coat"
        self.next(self.dress)

    @step
    def dress(self):
        self.worn = f"{self.said} of size {self.common}"
        self.next(self.end)

    @step
    def end(self):
        self.where = current.step_name


def look(run):
    return {
        "steps": sorted(step.id for step in run),
        "warm in run": "warm" in run,
        "index": run["cold"].task.index,
    }


if __name__ == "__main__":
    ConditionFlow()
