"""A failure of a step that fans out is caught by a decorator."""

from metaflow import FlowSpec, step, user_step_decorator


@user_step_decorator
def forgive(step_name, flow, inputs=None, attributes=None):
    try:
        yield
    except ValueError:
        flow.forgiven = True


@user_step_decorator
def mark(step_name, flow, inputs=None, attributes=None):
    flow.place = (flow.index, flow.input)
    yield


@user_step_decorator
def total(step_name, flow, inputs=None, attributes=None):
    flow.total = sum(each.got for each in inputs)
    yield
    flow.merge_artifacts(inputs, exclude=["got", "place"])


class UserDecoratorForeachFlow(FlowSpec):
    @forgive
    @step
    def start(self):
        self.items = [1, 2]
        if self.items:
            raise ValueError("on purpose")
        self.next(self.item, foreach="items")

    @mark
    @step
    def item(self):
        self.got = self.input
        self.next(self.join)

    @total
    @step
    def join(self, inputs):
        self.body = self.total
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    UserDecoratorForeachFlow()
