"""Attributes of the class are constants of every task."""

from metaflow import FlowSpec, step


class ClassConstantsFlow(FlowSpec):
    SIZES = (1, 2)
    names = ["a"]
    table = {"k": {"deep": 1}}

    @step
    def start(self):
        self.seen = (self.SIZES, self.names, self.table["k"]["deep"])
        self.next(self.end)

    @step
    def end(self):
        self.seen_later = [self.SIZES, self.names]


if __name__ == "__main__":
    ClassConstantsFlow()
