"""An artifact that nobody has set."""

from metaflow import FlowSpec, step


class ArtifactMissingFlow(FlowSpec):
    @step
    def start(self):
        self.default = getattr(self, "nowhere", 5)
        try:
            self.seen = self.nowhere
        except AttributeError:
            self.seen = "AttributeError"
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    ArtifactMissingFlow()
