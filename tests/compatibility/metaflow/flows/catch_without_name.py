"""A failure that is caught and not kept."""

from metaflow import FlowSpec, catch, step


class CatchWithoutNameFlow(FlowSpec):
    @catch(print_exception=False)
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
    CatchWithoutNameFlow()
