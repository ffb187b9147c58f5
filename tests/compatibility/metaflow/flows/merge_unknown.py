"""To include what no branch has is a failure."""

from metaflow import FlowSpec, step


class MergeUnknownFlow(FlowSpec):
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
        self.merge_artifacts(inputs, include=["nowhere"])
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    MergeUnknownFlow()
