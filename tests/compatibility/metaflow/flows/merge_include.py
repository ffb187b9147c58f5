"""Only what is named is merged."""

from metaflow import FlowSpec, step


class MergeIncludeFlow(FlowSpec):
    @step
    def start(self):
        self.common = "same"
        self.changed = 0
        self.next(self.a, self.b)

    @step
    def a(self):
        self.x = 1
        self.y = 1
        self.next(self.join)

    @step
    def b(self):
        self.x = 1
        self.z = 1
        self.next(self.join)

    @step
    def join(self, inputs):
        self.merge_artifacts(inputs, include=["x", "common"])
        self.has = [hasattr(self, name) for name in ("x", "y", "z")]
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    MergeIncludeFlow()
