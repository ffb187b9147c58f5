"""Conditions and loops within branches within a foreach within a foreach."""

from metaflow import FlowSpec, step


class ConditionDeepFlow(FlowSpec):
    @step
    def start(self):
        self.outer = [1, 2]
        self.next(self.group, foreach="outer")

    @step
    def group(self):
        self.name_of_group = f"g{self.input}"
        self.inner = list(range(self.input + 1))
        self.next(self.item, foreach="inner")

    @step
    def item(self):
        self.number = self.input
        self.next(self.loop_begins, self.choose)

    @step
    def loop_begins(self):
        self.turns = 0
        self.next(self.turn)

    @step
    def turn(self):
        self.turns += 1
        self.more = self.turns <= self.number
        self.next({True: self.turn, False: self.loop_ends}, condition="more")

    @step
    def loop_ends(self):
        self.result = f"{self.turns} turns"
        self.next(self.item_join)

    @step
    def choose(self):
        self.kind = self.number % 3
        self.next({0: self.zero, 1: self.one, 2: self.met}, condition="kind")

    @step
    def zero(self):
        self.way = "zero"
        self.next(self.met)

    @step
    def one(self):
        self.way = "one"
        self.next(self.met)

    @step
    def met(self):
        self.result = getattr(self, "way", "straight")
        self.next(self.item_join)

    @step
    def item_join(self, inputs):
        self.result = (inputs.loop_ends.result, inputs.met.result)
        self.merge_artifacts(inputs, include=["number", "name_of_group"])
        self.next(self.group_join)

    @step
    def group_join(self, inputs):
        self.results = [(each.number, each.result) for each in inputs]
        self.merge_artifacts(inputs, include=["name_of_group"])
        self.next(self.join)

    @step
    def join(self, inputs):
        self.results = {each.name_of_group: each.results for each in inputs}
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    ConditionDeepFlow()
