"""A step that calls `sys.exit`."""

import sys

from metaflow import FlowSpec, step


class ExitsFlow(FlowSpec):
    @step
    def start(self):
        self.number = 1
        if self.number:
            sys.exit(3)
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    ExitsFlow()
