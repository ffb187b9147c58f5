"""A failure of a step with a condition is caught by a decorator."""

from metaflow import FlowSpec, step, user_step_decorator


@user_step_decorator
def forgive(step_name, flow, inputs=None, attributes=None):
    try:
        yield
    except ValueError:
        flow.forgiven = True


class UserDecoratorConditionFlow(FlowSpec):
    @forgive
    @step
    def start(self):
        self.kind = "b"
        if self.kind:
            raise ValueError("on purpose")
        self.next({"a": self.one, "b": self.two}, condition="kind")

    @step
    def one(self):
        self.next(self.end)

    @step
    def two(self):
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    UserDecoratorConditionFlow()
