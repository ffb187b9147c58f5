"""What is the same in all branches, or set in one, is merged."""

from metaflow import FlowSpec, step


class MergeArtifactsFlow(FlowSpec):
    @step
    def start(self):
        self.common = "same"
        self.changed = 0
        self.next(self.a, self.b)

    @step
    def a(self):
        self.only_a = [1]
        self.both = 5
        self.next(self.join)

    @step
    def b(self):
        self.only_b = {2}
        self.both = 5
        self.next(self.join)

    @step
    def join(self, inputs):
        self.merge_artifacts(inputs)
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    MergeArtifactsFlow()
