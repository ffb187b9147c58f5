"""What a step has set before it failed is kept, and the failure is an artifact."""

from metaflow import FlowSpec, catch, step


class CatchFailureFlow(FlowSpec):
    @catch(var="problem")
    @step
    def start(self):
        self.before = 1
        if self.before:
            raise ValueError("on purpose")
        self.after = 2
        self.next(self.end)

    @step
    def end(self):
        self.told = "on purpose" in str(self.problem)
        self.truth = bool(self.problem)
        self.has = (hasattr(self, "before"), hasattr(self, "after"))


def look(run):
    return {"caught": bool(run["start"].task["problem"].data)}


if __name__ == "__main__":
    CatchFailureFlow()
