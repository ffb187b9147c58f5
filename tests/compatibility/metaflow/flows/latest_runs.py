"""The latest run, and the latest that has succeeded."""

from metaflow import Flow, FlowSpec, Parameter, step


class LatestRunsFlow(FlowSpec):
    number = Parameter("number", default=1)

    @step
    def start(self):
        self.share = 6 // self.number
        self.next(self.end)

    @step
    def end(self):
        pass


def look(run):
    flow = Flow(run.parent.id)
    return {
        "latest": flow.latest_run.successful,
        "successful": flow.latest_successful_run.data.share,
        "runs": [each.successful for each in flow],
    }


if __name__ == "__main__":
    LatestRunsFlow()
