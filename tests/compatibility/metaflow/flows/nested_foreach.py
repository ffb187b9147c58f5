"""A foreach within a foreach within a foreach."""

from metaflow import FlowSpec, step


class NestedForeachFlow(FlowSpec):
    @step
    def start(self):
        self.xs = [1, 2]
        self.next(self.outer, foreach="xs")

    @step
    def outer(self):
        self.ys = "ab" if self.input == 1 else "c"
        self.next(self.middle, foreach="ys")

    @step
    def middle(self):
        self.zs = [True, None]
        self.next(self.inner, foreach="zs")

    @step
    def inner(self):
        self.stack = [(index, count, value) for index, count, value in self.foreach_stack()]
        self.here = (self.index, self.input)
        self.next(self.inner_join)

    @step
    def inner_join(self, inputs):
        self.found = [each.here for each in inputs]
        self.mine = (self.index, self.input)
        self.next(self.middle_join)

    @step
    def middle_join(self, inputs):
        self.found = [each.found for each in inputs]
        self.mine = (self.index, self.input)
        self.next(self.outer_join)

    @step
    def outer_join(self, inputs):
        self.found = [each.found for each in inputs]
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    NestedForeachFlow()
