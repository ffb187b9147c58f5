"""What one branch changes in place, the other does not see."""

from metaflow import FlowSpec, step


class ChangesInPlaceFlow(FlowSpec):
    @step
    def start(self):
        self.names = ["start"]
        self.next(self.a, self.b)

    @step
    def a(self):
        self.names.append("a")
        self.next(self.join)

    @step
    def b(self):
        self.names.append("b")
        self.next(self.join)

    @step
    def join(self, inputs):
        self.of_each = sorted(each.names for each in inputs)
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    ChangesInPlaceFlow()
