"""A join has parameters and constants, and none of its branches' artifacts."""

from metaflow import FlowSpec, Parameter, step


class JoinStartsEmptyFlow(FlowSpec):
    size = Parameter("size", default=3)
    LIMIT = 9

    @step
    def start(self):
        self.common = 1
        self.next(self.a, self.b)

    @step
    def a(self):
        self.next(self.join)

    @step
    def b(self):
        self.next(self.join)

    @step
    def join(self, inputs):
        self.has = (hasattr(self, "common"), self.size, self.LIMIT)
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    JoinStartsEmptyFlow()
