"""A condition on what a join has found, and a loop after it."""

from metaflow import FlowSpec, step


class ConditionAfterJoinFlow(FlowSpec):
    @step
    def start(self):
        self.items = [4, 7]
        self.next(self.item, foreach="items")

    @step
    def item(self):
        self.double = self.input * 2
        self.next(self.join)

    @step
    def join(self, inputs):
        self.total = sum(each.double for each in inputs)
        self.next(self.judge)

    @step
    def judge(self):
        self.size = "large" if self.total > 20 else "small"
        self.next({"large": self.shrink, "small": self.end}, condition="size")

    @step
    def shrink(self):
        self.total //= 2
        self.enough = self.total < 10
        self.next({True: self.end, False: self.shrink}, condition="enough")

    @step
    def end(self):
        pass


if __name__ == "__main__":
    ConditionAfterJoinFlow()
