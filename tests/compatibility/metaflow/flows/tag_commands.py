"""Tags that are changed by commands."""

from metaflow import FlowSpec, step


class TagCommandsFlow(FlowSpec):
    @step
    def start(self):
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    TagCommandsFlow()
