"""Every kind of parameter, with its default."""

from metaflow import FlowSpec, JSONType, Parameter, current, step


class ParametersFlow(FlowSpec):
    whole = Parameter("whole", default=3)
    real = Parameter("real", default=1.5)
    truth = Parameter("truth", default=True)
    text = Parameter("text", default="some")
    nothing = Parameter("nothing")
    typed = Parameter("typed", type=float, default=2)
    listed = Parameter("listed", separator=",", default="a,b")
    data = Parameter("data", type=JSONType, default='{"x": [1, null]}')
    made = Parameter("made", type=JSONType, default={"y": 2})
    with_dash = Parameter("with-dash", default="d", help="A name with a dash.")
    shown = Parameter("shown", default=1, show_default=False)

    @step
    def start(self):
        self.all = [self.whole, self.real, self.truth, self.text, self.nothing]
        self.rest = [self.typed, self.listed, self.data, self.made, self.with_dash, self.shown]
        self.next(self.end)

    @step
    def end(self):
        self.names = sorted(current.parameter_names)


if __name__ == "__main__":
    ParametersFlow()
