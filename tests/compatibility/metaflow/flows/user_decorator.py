"""Code before and after a step, as a generator."""

from metaflow import FlowSpec, step, user_step_decorator


@user_step_decorator
def around(step_name, flow, inputs=None, attributes=None):
    flow.before = 1
    flow.told = (step_name, inputs is not None, attributes)
    yield
    flow.after = getattr(flow, "body", None)


class UserDecoratorFlow(FlowSpec):
    @around(mark="x")
    @step
    def start(self):
        self.body = self.before + 1
        self.next(self.left, self.right)

    @around
    @step
    def left(self):
        self.value = 1
        self.next(self.join)

    @step
    def right(self):
        self.value = 2
        self.next(self.join)

    @around
    @step
    def join(self, inputs):
        self.values = sorted(each.value for each in inputs)
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    UserDecoratorFlow()
