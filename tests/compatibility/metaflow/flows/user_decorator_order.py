"""Two decorators: the outer one begins and ends."""

from metaflow import FlowSpec, step, user_step_decorator


@user_step_decorator
def outer(step_name, flow, inputs=None, attributes=None):
    flow.log = ["outer begins"]
    yield
    flow.log += ["outer ends"]


@user_step_decorator
def inner(step_name, flow, inputs=None, attributes=None):
    flow.log += ["inner begins"]
    yield
    flow.log += ["inner ends"]


class UserDecoratorOrderFlow(FlowSpec):
    @outer
    @inner
    @step
    def start(self):
        self.log += ["body"]
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    UserDecoratorOrderFlow()
