"""The first and the last step have names of their own."""

from metaflow import FlowSpec, step


class NamedStartEndFlow(FlowSpec):
    @step(start=True)
    def begin(self):
        self.number = 1
        self.next(self.finish)

    @step(end=True)
    def finish(self):
        self.number += 1


def look(run):
    return {"end": run.end_task.parent.id, "data": run.data.number}


if __name__ == "__main__":
    NamedStartEndFlow()
