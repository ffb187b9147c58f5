"""A case with parallel branches of its own, and another with a foreach."""

from metaflow import FlowSpec, step


class BranchesInConditionFlow(FlowSpec):
    @step
    def start(self):
        self.mode = "wide"
        self.next({"two": self.two, "wide": self.wide}, condition="mode")

    @step
    def two(self):
        self.next(self.one_a, self.one_b)

    @step
    def one_a(self):
        self.part = "a"
        self.next(self.two_join)

    @step
    def one_b(self):
        self.part = "b"
        self.next(self.two_join)

    @step
    def two_join(self, inputs):
        self.parts = [each.part for each in inputs]
        self.next(self.report)

    @step
    def wide(self):
        self.letters = "xyz"
        self.next(self.letter, foreach="letters")

    @step
    def letter(self):
        self.part = self.input * 2
        self.next(self.wide_join)

    @step
    def wide_join(self, inputs):
        self.parts = [each.part for each in inputs]
        self.merge_artifacts(inputs, include=["mode"])
        self.next(self.report)

    @step
    def report(self):
        self.text = f"{self.mode}: {self.parts}"
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    BranchesInConditionFlow()
