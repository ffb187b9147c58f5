"""Every kind of parameter, given on the command line."""

from metaflow import FlowSpec, JSONType, Parameter, step


class ParametersGivenFlow(FlowSpec):
    whole = Parameter("whole", default=3)
    real = Parameter("real", default=1.5)
    truth = Parameter("truth", default=True)
    text = Parameter("text", default="some")
    nothing = Parameter("nothing")
    typed = Parameter("typed", type=float)
    counted = Parameter("counted", type=int, required=True)
    listed = Parameter("listed", separator=",", default="a,b")
    data = Parameter("data", type=JSONType, default="{}")
    with_dash = Parameter("with-dash", default="d")

    @step
    def start(self):
        self.all = [self.whole, self.real, self.truth, self.text, self.nothing, self.with_dash]
        self.rest = [self.typed, self.counted, self.listed, self.data]
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    ParametersGivenFlow()
