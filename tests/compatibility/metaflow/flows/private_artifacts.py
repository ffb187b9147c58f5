"""Names that begin with an underscore are handed on too."""

from metaflow import FlowSpec, step


class PrivateArtifactsFlow(FlowSpec):
    @step
    def start(self):
        self._hidden = 1
        self.next(self.end)

    @step
    def end(self):
        self.seen = self._hidden


if __name__ == "__main__":
    PrivateArtifactsFlow()
