"""A function that runs instead of the step."""

from metaflow import FlowSpec, step, user_step_decorator


def other(flow, inputs=None):
    flow.other = 2
    flow.next(flow.end)


@user_step_decorator
def instead(step_name, flow, inputs=None, attributes=None):
    yield other


class UserDecoratorInsteadFlow(FlowSpec):
    @instead
    @step
    def start(self):
        self.body = 1
        self.next(self.end)

    @step
    def end(self):
        self.has = (hasattr(self, "body"), self.other)


if __name__ == "__main__":
    UserDecoratorInsteadFlow()
