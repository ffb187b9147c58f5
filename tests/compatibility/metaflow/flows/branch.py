"""Two steps side by side, and a join."""

from metaflow import FlowSpec, step


class BranchFlow(FlowSpec):
    @step
    def start(self):
        self.base = 10
        self.next(self.plus, self.minus)

    @step
    def plus(self):
        self.number = self.base + 1
        self.only_plus = True
        self.next(self.join)

    @step
    def minus(self):
        self.number = self.base - 1
        self.next(self.join)

    @step
    def join(self, inputs):
        self.named = (inputs.plus.number, inputs.minus.number)
        self.numbered = {inputs[0].number, inputs[1].number}
        self.each = sorted(one.number for one in inputs)
        self.base_of_one = inputs.plus.base
        self.has = sorted(hasattr(one, "only_plus") for one in inputs)
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    BranchFlow()
