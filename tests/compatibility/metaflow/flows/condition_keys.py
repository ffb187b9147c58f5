"""Keys of cases that are numbers and truths."""

from metaflow import FlowSpec, step


class ConditionKeysFlow(FlowSpec):
    @step
    def start(self):
        self.number = 2
        self.next({1: self.one, 2: self.two}, condition="number")

    @step
    def one(self):
        self.next(self.met)

    @step
    def two(self):
        self.next(self.met)

    @step
    def met(self):
        self.truth = self.number > 5
        self.next({True: self.yes, False: self.no}, condition="truth")

    @step
    def yes(self):
        self.next(self.end)

    @step
    def no(self):
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    ConditionKeysFlow()
