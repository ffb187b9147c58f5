"""Artifacts that conflict are left out."""

from metaflow import FlowSpec, step


class MergeExcludeFlow(FlowSpec):
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
        self.merge_artifacts(inputs, exclude=["changed"])
        self.has = hasattr(self, "changed")
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    MergeExcludeFlow()
