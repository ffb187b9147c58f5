"""A parameter that must be a number is none."""

from metaflow import FlowSpec, Parameter, step


class ParameterWrongFlow(FlowSpec):
    size = Parameter("size", default=1)

    @step
    def start(self):
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    ParameterWrongFlow()
