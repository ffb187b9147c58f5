"""A step that leads nowhere is refused."""

from metaflow import FlowSpec, step


class WithoutNextFlow(FlowSpec):
    @step
    def start(self):
        self.number = 1

    @step
    def end(self):
        pass


if __name__ == "__main__":
    WithoutNextFlow()
