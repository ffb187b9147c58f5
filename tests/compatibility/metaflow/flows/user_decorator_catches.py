"""A decorator catches a failure; the step goes where its source says."""

from metaflow import FlowSpec, step, user_step_decorator


@user_step_decorator
def forgive(step_name, flow, inputs=None, attributes=None):
    try:
        yield
    except ValueError as error:
        flow.problem = str(error)


class UserDecoratorCatchesFlow(FlowSpec):
    @forgive
    @step
    def start(self):
        self.before = 1
        if self.before:
            raise ValueError("on purpose")
        self.next(self.left, self.right)

    @step
    def left(self):
        self.next(self.join)

    @step
    def right(self):
        self.next(self.join)

    @step
    def join(self, inputs):
        self.merge_artifacts(inputs)
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    UserDecoratorCatchesFlow()
