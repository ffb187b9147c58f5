"""What is not there."""

from metaflow import Flow, FlowSpec, Run, Step, Task, step


class ClientRefusedFlow(FlowSpec):
    @step
    def start(self):
        self.next(self.end)

    @step
    def end(self):
        pass


def look(run):
    refused = []
    for ask, kind in (
        (lambda: Flow("NowhereFlow"), Exception),
        (lambda: Run(f"{run.parent.id}/1"), Exception),
        (lambda: Run(run.parent.id), Exception),
        (lambda: Step(f"{run.pathspec}/nowhere"), Exception),
        (lambda: Task(f"{run.pathspec}/start/999"), Exception),
        (lambda: run["nowhere"], KeyError),
        (lambda: run["start"]["999"], KeyError),
        (lambda: run["start"].task["nowhere"], KeyError),
        (lambda: run.data.nowhere, AttributeError),
    ):
        try:
            ask()
        except kind:
            refused.append(True)
        else:
            refused.append(False)
    return {"refused": refused}


if __name__ == "__main__":
    ClientRefusedFlow()
