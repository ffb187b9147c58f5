"""A class that has a step skipped."""

from metaflow import FlowSpec, UserStepDecorator, step


class Skip(UserStepDecorator):
    def pre_step(self, step_name, flow, inputs=None):
        flow.skipped = True
        self.skip_step = True

    def post_step(self, step_name, flow, exception=None):
        flow.told = exception


class UserDecoratorClassSkipsFlow(FlowSpec):
    @Skip
    @step
    def start(self):
        self.body = 1
        self.next(self.end)

    @step
    def end(self):
        self.has = hasattr(self, "body")


if __name__ == "__main__":
    UserDecoratorClassSkipsFlow()
