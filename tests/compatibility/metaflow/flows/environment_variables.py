"""Variables of one step alone."""

import os

from metaflow import FlowSpec, environment, step


class EnvironmentVariablesFlow(FlowSpec):
    @environment(vars={"COLOUR": "red", "COUNT": "3"})
    @step
    def start(self):
        self.seen = (os.environ["COLOUR"], os.environ["COUNT"])
        self.next(self.end)

    @step
    def end(self):
        self.seen_later = os.environ.get("COLOUR")


if __name__ == "__main__":
    EnvironmentVariablesFlow()
