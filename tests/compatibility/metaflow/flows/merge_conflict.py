"""An artifact with two values is a failure."""

from metaflow import FlowSpec, step


class MergeConflictFlow(FlowSpec):
    @step
    def start(self):
        self.common = "same"
        self.changed = 0
        self.next(self.a, self.b)

    @step
    def a(self):
        self.changed = 1
        self.next(self.join)

    @step
    def b(self):
        self.changed = 2
        self.next(self.join)

    @step
    def join(self, inputs):
        self.merge_artifacts(inputs)
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    MergeConflictFlow()
