"""A loop of two steps."""

from metaflow import FlowSpec, step


class RecursionOverStepsFlow(FlowSpec):
    @step
    def start(self):
        self.log = ["start"]
        self.next(self.work)

    @step
    def work(self):
        self.log = [*self.log, "work"]
        self.next(self.check)

    @step
    def check(self):
        self.log = [*self.log, "check"]
        self.good = "yes" if len(self.log) > 5 else "no"
        self.next({"yes": self.end, "no": self.work}, condition="good")

    @step
    def end(self):
        self.length = len(self.log)


if __name__ == "__main__":
    RecursionOverStepsFlow()
