"""A change of a parameter's value ends with its task."""

from metaflow import FlowSpec, JSONType, Parameter, step


class ParameterInPlaceFlow(FlowSpec):
    data = Parameter("data", type=JSONType, default='{"a": []}')

    @step
    def start(self):
        self.data["a"].append(1)
        self.seen = self.data["a"]
        self.next(self.end)

    @step
    def end(self):
        self.seen_later = self.data["a"]


if __name__ == "__main__":
    ParameterInPlaceFlow()
