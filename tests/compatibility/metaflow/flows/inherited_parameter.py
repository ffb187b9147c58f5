"""A parameter that is defined again."""

from metaflow import FlowSpec, Parameter, step


class Base(FlowSpec):
    size = Parameter("size", default=1)

    @step
    def start(self):
        self.seen = self.size
        self.next(self.end)

    @step
    def end(self):
        pass


class InheritedParameterFlow(Base):
    size = Parameter("size", default=2)


if __name__ == "__main__":
    InheritedParameterFlow()
