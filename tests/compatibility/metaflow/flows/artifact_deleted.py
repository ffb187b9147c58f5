"""An artifact that is deleted is not handed on."""

from metaflow import FlowSpec, step


class ArtifactDeletedFlow(FlowSpec):
    @step
    def start(self):
        self.kept = 1
        self.gone = 2
        self.next(self.middle)

    @step
    def middle(self):
        self.seen = self.gone
        del self.gone
        self.has = hasattr(self, "gone")
        self.next(self.end)

    @step
    def end(self):
        self.has_later = hasattr(self, "gone")


if __name__ == "__main__":
    ArtifactDeletedFlow()
