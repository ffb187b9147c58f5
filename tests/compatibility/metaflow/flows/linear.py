"""Artifacts go from step to step."""

from metaflow import FlowSpec, step


class LinearFlow(FlowSpec):
    @step
    def start(self):
        self.number = 1
        self.words = ["one"]
        self.next(self.middle)

    @step
    def middle(self):
        self.number += 1
        self.words = [*self.words, "two"]
        self.next(self.end)

    @step
    def end(self):
        self.sum = self.number + len(self.words)


def look(run):
    return {
        "data": (run.data.number, run.data.words, run.data.sum),
        "steps": sorted(step.id for step in run),
        "end": run.end_task.parent.id,
    }


if __name__ == "__main__":
    LinearFlow()
