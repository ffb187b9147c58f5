"""The variable of a step that has not failed is None."""

from metaflow import FlowSpec, catch, step


class CatchNothingFlow(FlowSpec):
    @catch(var="problem")
    @step
    def start(self):
        self.next(self.end)

    @catch
    @step
    def end(self):
        self.seen = self.problem


if __name__ == "__main__":
    CatchNothingFlow()
