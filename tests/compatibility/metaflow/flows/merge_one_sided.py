"""One branch changed an artifact, the other left it as it was."""

from metaflow import FlowSpec, step


class MergeOneSidedFlow(FlowSpec):
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
        self.next(self.join)

    @step
    def join(self, inputs):
        self.merge_artifacts(inputs)
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    MergeOneSidedFlow()
