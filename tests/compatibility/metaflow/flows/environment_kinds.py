"""Variables of a step whose values are no texts."""

import os

from metaflow import FlowSpec, environment, step


class EnvironmentKindsFlow(FlowSpec):
    @environment(vars={"WHOLE": 3, "REAL": 1.5, "NONE": None, "TRUTH": True, "LIST": [1, "a"]})
    @step
    def start(self):
        names = ("WHOLE", "REAL", "NONE", "TRUTH", "LIST")
        self.seen = [os.environ.get(name) for name in names]
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    EnvironmentKindsFlow()
