"""A condition within a branch, whose cases lead straight to the join of the branches."""

from metaflow import FlowSpec, step


class ConditionToBranchJoinFlow(FlowSpec):
    @step
    def start(self):
        self.base = 10
        self.next(self.choose, self.plain)

    @step
    def choose(self):
        self.way = "up"
        self.next({"up": self.up, "down": self.down}, condition="way")

    @step
    def up(self):
        self.number = self.base + 1
        self.next(self.join)

    @step
    def down(self):
        self.number = self.base - 1
        self.next(self.join)

    @step
    def plain(self):
        self.number = self.base
        self.next(self.join)

    @step
    def join(self, inputs):
        self.numbers = sorted(each.number for each in inputs)
        self.has = (hasattr(inputs, "up"), hasattr(inputs, "down"), inputs.up.number)
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    ConditionToBranchJoinFlow()
