"""A case that leads straight to the end."""

from metaflow import FlowSpec, step


class ConditionSkipsFlow(FlowSpec):
    @step
    def start(self):
        self.enough = "yes"
        self.next({"yes": self.end, "no": self.work}, condition="enough")

    @step
    def work(self):
        self.next(self.end)

    @step
    def end(self):
        self.told = self.enough


if __name__ == "__main__":
    ConditionSkipsFlow()
