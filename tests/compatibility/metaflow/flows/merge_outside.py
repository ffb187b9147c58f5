"""Artifacts are merged in joins alone."""

from metaflow import FlowSpec, step


class MergeOutsideFlow(FlowSpec):
    @step
    def start(self):
        self.merge_artifacts([self])
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    MergeOutsideFlow()
