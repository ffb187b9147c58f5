"""A join that fans out again."""

from metaflow import FlowSpec, step


class JoinSplitsFlow(FlowSpec):
    @step
    def start(self):
        self.text = "xy"
        self.next(self.letter, foreach="text")

    @step
    def letter(self):
        self.got = self.input
        self.next(self.join)

    @step
    def join(self, inputs):
        self.got = [each.got for each in inputs]
        self.next(self.again, foreach="got")

    @step
    def again(self):
        self.got = self.input * 2
        self.next(self.last_join)

    @step
    def last_join(self, inputs):
        self.got = [each.got for each in inputs]
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    JoinSplitsFlow()
