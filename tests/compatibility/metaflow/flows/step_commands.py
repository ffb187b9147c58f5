"""Commands that look at the tasks of a step, and at the flow."""

import pickle
from pathlib import Path

from metaflow import FlowSpec, step


class StepCommandsFlow(FlowSpec):
    """Doc of the flow."""

    @step
    def start(self):
        """Doc of the step."""
        self.number = 1
        self.text = "x" * 100
        print("said")
        self.next(self.end)

    @step
    def end(self):
        pass


def look(run):
    dumped = pickle.loads(Path(__file__).with_name("kept.pickle").read_bytes())
    (name, values), *_ = dumped.items()
    return {"names": name.split("/")[1:], "values": (values["number"], values["text"])}


if __name__ == "__main__":
    StepCommandsFlow()
