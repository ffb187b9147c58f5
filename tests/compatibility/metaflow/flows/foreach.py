"""A task for each item, and a join over them in order."""

from metaflow import FlowSpec, step


class ForeachFlow(FlowSpec):
    @step
    def start(self):
        self.letters = ["a", "b", "c"]
        self.next(self.letter, foreach="letters")

    @step
    def letter(self):
        self.upper = self.input.upper()
        self.place = self.index
        self.stack = self.foreach_stack()
        self.next(self.join)

    @step
    def join(self, inputs):
        self.uppers = [each.upper for each in inputs]
        self.places = [each.place for each in inputs]
        self.second = inputs[1].upper
        self.without = (self.index, self.input)
        self.next(self.end)

    @step
    def end(self):
        pass


def look(run):
    return {
        "indexes": sorted(task.index for task in run["letter"]),
        "index of join": run["join"].task.index,
        "stacks": sorted(task["stack"].data for task in run["letter"]),
    }


if __name__ == "__main__":
    ForeachFlow()
