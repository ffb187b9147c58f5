"""Defaults that are found out when the run starts."""

from metaflow import FlowSpec, JSONType, Parameter, step


def named(context):
    return f"{context.flow_name} of {context.parameter_name}"


class ParameterFunctionsFlow(FlowSpec):
    size = Parameter("size", type=int, default=lambda context: len(context.flow_name))
    label = Parameter("label", default=named)
    data = Parameter("data", type=JSONType, default=lambda _: '{"a": 1}')

    @step
    def start(self):
        self.all = (self.size, self.label, self.data)
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    ParameterFunctionsFlow()
