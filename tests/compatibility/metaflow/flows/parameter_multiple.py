"""A parameter that is given several times."""

from metaflow import FlowSpec, Parameter, step


class ParameterMultipleFlow(FlowSpec):
    names = Parameter("names", multiple=True)
    sizes = Parameter("sizes", multiple=True, type=int, default=[1, 2])
    none = Parameter("none", multiple=True)

    @step
    def start(self):
        self.all = (self.names, self.sizes, self.none)
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    ParameterMultipleFlow()
