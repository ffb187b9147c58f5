"""One of two parallel branches has a condition within."""

from metaflow import FlowSpec, step


class ConditionInBranchFlow(FlowSpec):
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
        self.next(self.chosen)

    @step
    def down(self):
        self.number = self.base - 1
        self.next(self.chosen)

    @step
    def chosen(self):
        self.next(self.join)

    @step
    def plain(self):
        self.number = self.base
        self.next(self.join)

    @step
    def join(self, inputs):
        self.numbers = sorted(each.number for each in inputs)
        self.by_name = (inputs.chosen.number, inputs.plain.number)
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    ConditionInBranchFlow()
