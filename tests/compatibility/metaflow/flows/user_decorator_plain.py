"""A function that is no generator is refused."""

from metaflow import FlowSpec, step, user_step_decorator


@user_step_decorator
def plain(step_name, flow, inputs=None, attributes=None):
    return None


class UserDecoratorPlainFlow(FlowSpec):
    @plain
    @step
    def start(self):
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    UserDecoratorPlainFlow()
