"""A condition within a case of another one, and a case that skips to the end."""

from metaflow import FlowSpec, step


class NestedConditionFlow(FlowSpec):
    @step
    def start(self):
        self.first = "deeper"
        self.next({"deeper": self.deeper, "done": self.end}, condition="first")

    @step
    def deeper(self):
        self.second = "left"
        self.next({"left": self.left, "right": self.right}, condition="second")

    @step
    def left(self):
        self.way = "left"
        self.next(self.met)

    @step
    def right(self):
        self.way = "right"
        self.next(self.met)

    @step
    def met(self):
        self.next(self.end)

    @step
    def end(self):
        self.all = (self.first, self.second, self.way)


if __name__ == "__main__":
    NestedConditionFlow()
