"""A branch that branches again."""

from metaflow import FlowSpec, step


class NestedBranchFlow(FlowSpec):
    @step
    def start(self):
        self.path = ["start"]
        self.next(self.left, self.right)

    @step
    def left(self):
        self.path = [*self.path, "left"]
        self.next(self.upper, self.lower)

    @step
    def upper(self):
        self.path = [*self.path, "upper"]
        self.next(self.left_join)

    @step
    def lower(self):
        self.path = [*self.path, "lower"]
        self.next(self.left_join)

    @step
    def left_join(self, inputs):
        self.paths = [inputs.upper.path, inputs.lower.path]
        self.next(self.join)

    @step
    def right(self):
        self.paths = [[*self.path, "right"]]
        self.next(self.join)

    @step
    def join(self, inputs):
        self.paths = [*inputs.left_join.paths, *inputs.right.paths]
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    NestedBranchFlow()
