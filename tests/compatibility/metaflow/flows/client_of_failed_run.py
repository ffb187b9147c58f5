"""What a run tells that has failed."""

from metaflow import Flow, FlowSpec, step


class ClientOfFailedRunFlow(FlowSpec):
    @step
    def start(self):
        self.number = 0
        self.next(self.end)

    @step
    def end(self):
        self.share = 1 // self.number


def look(run):
    task = run["end"].task
    return {
        "flags": (run.successful, task.successful, run["start"].task.successful),
        "kept": (task["number"].data, "share" in task),
        "failure": bool(task.exception),
        "latest": Flow(run.parent.id).latest_successful_run,
    }


if __name__ == "__main__":
    ClientOfFailedRunFlow()
