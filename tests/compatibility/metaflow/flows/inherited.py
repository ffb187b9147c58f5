"""Steps, parameters, constants and decorators come from a base flow and a mixin."""

from metaflow import FlowSpec, Parameter, current, retry, step


class Helps:
    mixed = Parameter("mixed", default="m")

    def helped(self):
        return f"helped {self.mixed}"


class Base(FlowSpec):
    based = Parameter("based", default=1)
    LIMIT = 5

    @retry(times=1, minutes_between_retries=0)
    @step
    def start(self):
        self.attempt = current.retry_count
        if self.attempt == 0:
            raise ValueError("once")
        self.next(self.middle)

    @step
    def middle(self):
        self.way = ["base"]
        self.next(self.end)

    @step
    def end(self):
        self.all = (self.based, self.own, self.LIMIT, self.way)
        self.names = sorted(current.parameter_names)


class InheritedFlow(Helps, Base):
    own = Parameter("own", default=2)

    @step
    def middle(self):
        self.way = ["own", self.helped()]
        self.next(self.extra)

    @step
    def extra(self):
        self.next(self.end)


if __name__ == "__main__":
    InheritedFlow()
