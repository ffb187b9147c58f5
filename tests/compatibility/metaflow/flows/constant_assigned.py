"""To assign to an attribute of the class is a failure of the step."""

from metaflow import FlowSpec, step


class ConstantAssignedFlow(FlowSpec):
    limit = 5

    @step
    def start(self):
        self.limit = 6
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    ConstantAssignedFlow()
