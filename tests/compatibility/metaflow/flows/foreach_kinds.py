"""What a foreach may run over: text, a range, a tuple of pairs."""

from metaflow import FlowSpec, step


class ForeachKindsFlow(FlowSpec):
    @step
    def start(self):
        self.text = "xy"
        self.next(self.of_text, foreach="text")

    @step
    def of_text(self):
        self.got = self.input
        self.next(self.after_text)

    @step
    def after_text(self, inputs):
        self.of_text_got = [each.got for each in inputs]
        self.next(self.begin_range)

    @step
    def begin_range(self):
        self.numbers = range(2, 4)
        self.next(self.of_range, foreach="numbers")

    @step
    def of_range(self):
        self.got = self.input
        self.merged = self.of_text_got
        self.next(self.after_range)

    @step
    def after_range(self, inputs):
        self.of_range_got = [each.got for each in inputs]
        self.next(self.begin_tuple)

    @step
    def begin_tuple(self):
        self.pairs = ((1, "one"), (2, "two"))
        self.next(self.of_tuple, foreach="pairs")

    @step
    def of_tuple(self):
        self.got = self.input
        self.next(self.after_tuple)

    @step
    def after_tuple(self, inputs):
        self.of_tuple_got = [each.got for each in inputs]
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    ForeachKindsFlow()
