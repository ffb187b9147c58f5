"""A run is resumed behind a nested foreach."""

from metaflow import FlowSpec, current, step


class ResumedNestedFlow(FlowSpec):
    @step
    def start(self):
        self.xs = [1, 2]
        self.next(self.outer, foreach="xs")

    @step
    def outer(self):
        self.ys = "ab"
        self.next(self.inner, foreach="ys")

    @step
    def inner(self):
        self.resumed = current.origin_run_id is not None
        self.place = [index for index, *_ in self.foreach_stack()]
        self.next(self.inner_join)

    @step
    def inner_join(self, inputs):
        self.places = [each.place for each in inputs]
        self.next(self.outer_join)

    @step
    def outer_join(self, inputs):
        self.places = [each.places for each in inputs]
        if current.origin_run_id is None:
            raise ValueError("once")
        self.next(self.end)

    @step
    def end(self):
        self.resumed = current.origin_run_id is not None


if __name__ == "__main__":
    ResumedNestedFlow()
