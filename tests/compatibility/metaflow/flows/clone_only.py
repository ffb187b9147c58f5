"""A run that has succeeded is taken over as it is."""

from metaflow import FlowSpec, current, step


class CloneOnlyFlow(FlowSpec):
    @step
    def start(self):
        self.resumed = current.origin_run_id is not None
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    CloneOnlyFlow()
