"""To include and exclude at once is a failure."""

from metaflow import FlowSpec, step


class MergeBothOptionsFlow(FlowSpec):
    @step
    def start(self):
        self.common = "same"
        self.changed = 0
        self.next(self.a, self.b)

    @step
    def a(self):
        self.x = 1
        self.next(self.join)

    @step
    def b(self):
        self.x = 1
        self.next(self.join)

    @step
    def join(self, inputs):
        self.merge_artifacts(inputs, include=["x"], exclude=["common"])
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    MergeBothOptionsFlow()
