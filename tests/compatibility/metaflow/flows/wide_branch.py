"""Five branches."""

from metaflow import FlowSpec, step


class WideBranchFlow(FlowSpec):
    @step
    def start(self):
        self.next(self.e, self.d, self.c, self.b, self.a)

    @step
    def a(self):
        self.name_of_step = "a"
        self.next(self.join)

    @step
    def b(self):
        self.name_of_step = "b"
        self.next(self.join)

    @step
    def c(self):
        self.name_of_step = "c"
        self.next(self.join)

    @step
    def d(self):
        self.name_of_step = "d"
        self.next(self.join)

    @step
    def e(self):
        self.name_of_step = "e"
        self.next(self.join)

    @step
    def join(self, inputs):
        self.names_of_steps = sorted(each.name_of_step for each in inputs)
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    WideBranchFlow()
