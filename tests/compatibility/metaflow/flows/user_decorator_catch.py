"""What fails before the step is caught like the step."""

from metaflow import FlowSpec, catch, step, user_step_decorator


@user_step_decorator
def fails(step_name, flow, inputs=None, attributes=None):
    flow.before = 1
    if flow.before:
        raise ValueError("before the step")
    yield


class UserDecoratorCatchFlow(FlowSpec):
    @catch(var="problem")
    @fails
    @step
    def start(self):
        self.body = 1
        self.next(self.end)

    @step
    def end(self):
        self.caught = bool(self.problem)
        self.has = (hasattr(self, "body"), hasattr(self, "before"))


if __name__ == "__main__":
    UserDecoratorCatchFlow()
