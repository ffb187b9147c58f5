"""A step that takes too long is stopped, and that is caught."""

import time

from metaflow import FlowSpec, catch, step, timeout


class TimeoutCaughtFlow(FlowSpec):
    @catch(var="problem")
    @timeout(seconds=1)
    @step
    def start(self):
        self.before = 1
        time.sleep(30)
        self.next(self.end)

    @step
    def end(self):
        self.late = bool(self.problem)


if __name__ == "__main__":
    TimeoutCaughtFlow()
