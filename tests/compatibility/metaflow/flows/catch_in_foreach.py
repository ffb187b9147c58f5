"""One of three items fails, and the join goes on."""

from metaflow import FlowSpec, catch, step


class CatchInForeachFlow(FlowSpec):
    @step
    def start(self):
        self.items = [1, 0, 2]
        self.next(self.item, foreach="items")

    @catch(var="problem", print_exception=False)
    @step
    def item(self):
        self.share = 10 // self.input
        self.next(self.join)

    @step
    def join(self, inputs):
        self.shares = [getattr(each, "share", None) for each in inputs]
        self.failed = [bool(each.problem) for each in inputs]
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    CatchInForeachFlow()
