"""A change of a list in the class ends with its task."""

from metaflow import FlowSpec, step


class ConstantInPlaceFlow(FlowSpec):
    names = ["a"]

    @step
    def start(self):
        self.names.append("b")
        self.seen = list(self.names)
        self.next(self.end)

    @step
    def end(self):
        self.seen_later = list(self.names)


if __name__ == "__main__":
    ConstantInPlaceFlow()
