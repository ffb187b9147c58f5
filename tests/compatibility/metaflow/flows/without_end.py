"""A flow without an end is refused."""

from metaflow import FlowSpec, step


class WithoutEndFlow(FlowSpec):
    @step
    def start(self):
        self.next(self.middle)

    @step
    def middle(self):
        self.next(self.start)


if __name__ == "__main__":
    WithoutEndFlow()
