"""A decorator raises another error."""

from metaflow import FlowSpec, step, user_step_decorator


@user_step_decorator
def other(step_name, flow, inputs=None, attributes=None):
    try:
        yield
    except ValueError as error:
        raise KeyError("another") from error


class UserDecoratorReplacesFailureFlow(FlowSpec):
    @other
    @step
    def start(self):
        self.before = 1
        if self.before:
            raise ValueError("on purpose")
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    UserDecoratorReplacesFailureFlow()
