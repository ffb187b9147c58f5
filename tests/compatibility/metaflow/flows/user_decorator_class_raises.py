"""A class that gives a failure on."""

from metaflow import FlowSpec, UserStepDecorator, step


class Told(UserStepDecorator):
    def post_step(self, step_name, flow, exception=None):
        return exception


class UserDecoratorClassRaisesFlow(FlowSpec):
    @Told
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
    UserDecoratorClassRaisesFlow()
