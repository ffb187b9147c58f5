"""What `__init__` sets is there in every task."""

from metaflow import FlowSpec, step


class InitAttributesFlow(FlowSpec):
    def __init__(self, use_cli=True):
        self.counter = 0
        self.options = {"a": 1}
        super().__init__(use_cli)

    @step
    def start(self):
        self.counter += 1
        self.options["b"] = 2
        self.next(self.end)

    @step
    def end(self):
        self.seen = (self.counter, self.options)


if __name__ == "__main__":
    InitAttributesFlow()
