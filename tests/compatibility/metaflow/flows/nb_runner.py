"""A program that is no notebook runs a flow class."""

import os

from metaflow import FlowSpec, NBRunner, step


class NbRunnerFlow(FlowSpec):
    @step
    def start(self):
        self.number = 4
        self.next(self.end)

    @step
    def end(self):
        pass


def look(run):
    try:
        made = NBRunner(NbRunnerFlow, show_output=False, env=dict(os.environ)).nbrun()
    except Exception:  # noqa: BLE001 - each engine has errors of its own
        return {"number": None}
    return {"number": made.data.number}


if __name__ == "__main__":
    NbRunnerFlow()
