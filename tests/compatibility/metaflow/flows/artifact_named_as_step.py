"""An artifact with the name of its step."""

from metaflow import FlowSpec, step


class ArtifactNamedAsStepFlow(FlowSpec):
    @step
    def start(self):
        self.next(self.numbers)

    @step
    def numbers(self):
        self.numbers = [1, 2]
        self.next(self.end)

    @step
    def end(self):
        self.seen = self.numbers if isinstance(self.numbers, list) else "the step"


if __name__ == "__main__":
    ArtifactNamedAsStepFlow()
