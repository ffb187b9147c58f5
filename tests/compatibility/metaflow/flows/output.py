"""What tasks print."""

import sys

from metaflow import FlowSpec, step


class OutputFlow(FlowSpec):
    @step
    def start(self):
        print("one\ntwo")
        print("no end", end="")
        print("é", file=sys.stderr)
        self.next(self.end)

    @step
    def end(self):
        print()


if __name__ == "__main__":
    OutputFlow()
