"""Each item goes two ways."""

from metaflow import FlowSpec, step


class BranchInForeachFlow(FlowSpec):
    @step
    def start(self):
        self.items = ["p", "q"]
        self.next(self.item, foreach="items")

    @step
    def item(self):
        self.mark = self.input
        self.next(self.left, self.right)

    @step
    def left(self):
        self.said = "left " + self.mark + str(self.index)
        self.next(self.item_join)

    @step
    def right(self):
        self.said = "right " + self.input
        self.next(self.item_join)

    @step
    def item_join(self, inputs):
        self.said = [inputs.left.said, inputs.right.said]
        self.mine = (self.index, self.input)
        self.next(self.join)

    @step
    def join(self, inputs):
        self.said = [each.said for each in inputs]
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    BranchInForeachFlow()
