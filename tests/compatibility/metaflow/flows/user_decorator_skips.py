"""A step that is skipped."""

from metaflow import USER_SKIP_STEP, FlowSpec, step, user_step_decorator


@user_step_decorator
def skip(step_name, flow, inputs=None, attributes=None):
    flow.skipped = True
    yield USER_SKIP_STEP


class UserDecoratorSkipsFlow(FlowSpec):
    @skip
    @step
    def start(self):
        self.body = 1
        self.next(self.end)

    @step
    def end(self):
        self.has = hasattr(self, "body")


if __name__ == "__main__":
    UserDecoratorSkipsFlow()
