"""What cannot be stored fails the step."""

import threading

from metaflow import FlowSpec, step


class ArtifactUnpicklableFlow(FlowSpec):
    @step
    def start(self):
        self.lock = threading.Lock()
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    ArtifactUnpicklableFlow()
