"""A flow of one step."""

from metaflow import FlowSpec, step


class OneStepFlow(FlowSpec):
    @step(start=True, end=True)
    def only(self):
        self.number = 1


def look(run):
    return {"end": run.end_task.parent.id, "data": run.data.number}


if __name__ == "__main__":
    OneStepFlow()
