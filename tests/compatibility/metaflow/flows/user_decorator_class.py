"""A decorator that is a class."""

from metaflow import FlowSpec, UserStepDecorator, step


class Around(UserStepDecorator):
    _allowed_args = True
    _allowed_kwargs = True

    def init(self, *args, **kwargs):
        self.given = (args, kwargs)

    def pre_step(self, step_name, flow, inputs=None):
        flow.before = (step_name, self.given)

    def post_step(self, step_name, flow, exception=None):
        flow.after = str(exception)


class UserDecoratorClassFlow(FlowSpec):
    @Around("p", key="k")
    @step
    def start(self):
        self.body = self.before
        self.next(self.fails)

    @Around
    @step
    def fails(self):
        self.body = 2
        if self.body:
            raise ValueError("on purpose")
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    UserDecoratorClassFlow()
