"""`current` where no flow runs."""

from metaflow import FlowSpec, current, step


class OutsideOfAFlowFlow(FlowSpec):
    @step
    def start(self):
        self.next(self.end)

    @step
    def end(self):
        pass


def look(run):
    return {"running": current.is_running_flow, "step": current.get("step_name")}


if __name__ == "__main__":
    OutsideOfAFlowFlow()
