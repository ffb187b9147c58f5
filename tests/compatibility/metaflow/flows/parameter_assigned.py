"""To assign to a parameter is a failure of the step."""

from metaflow import FlowSpec, Parameter, step


class ParameterAssignedFlow(FlowSpec):
    size = Parameter("size", default=1)

    @step
    def start(self):
        self.size = 2
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    ParameterAssignedFlow()
