"""A decorator of the flow's file from the command line."""

from metaflow import FlowSpec, step, user_step_decorator


@user_step_decorator
def around(step_name, flow, inputs=None, attributes=None):
    flow.before = (step_name, attributes)
    yield


class WithUserDecoratorFlow(FlowSpec):
    @step
    def start(self):
        self.body = self.before
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    WithUserDecoratorFlow()
