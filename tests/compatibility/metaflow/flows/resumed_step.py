"""From a step on all is run again."""

from metaflow import FlowSpec, current, step


class ResumedStepFlow(FlowSpec):
    @step
    def start(self):
        self.first = current.origin_run_id is None
        self.next(self.middle)

    @step
    def middle(self):
        self.second = current.origin_run_id is None
        self.next(self.end)

    @step
    def end(self):
        self.third = current.origin_run_id is None


if __name__ == "__main__":
    ResumedStepFlow()
