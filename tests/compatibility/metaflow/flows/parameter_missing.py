"""A parameter that must be given is not."""

from metaflow import FlowSpec, Parameter, step


class ParameterMissingFlow(FlowSpec):
    must = Parameter("must", required=True)

    @step
    def start(self):
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    ParameterMissingFlow()
