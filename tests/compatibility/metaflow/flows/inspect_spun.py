"""The client looks at the tasks that were run again and kept."""

import os

from metaflow import Flow, FlowSpec, Runner, default_metadata, inspect_spin, step


class InspectSpunFlow(FlowSpec):
    @step
    def start(self):
        self.number = 4
        self.next(self.end)

    @step
    def end(self):
        self.twice = 2 * self.number


def look(run):
    name, there = run.parent.id, run["end"].task.pathspec
    with Runner(__file__, show_output=False, env=dict(os.environ)) as runner:
        told = {"status": runner.spin(there, persist=True).status}
    inspect_spin(".")
    try:
        kept = Flow(name).latest_run
        told["steps"] = [step.id for step in kept]
        told["twice"] = kept["end"].task["twice"].data
    finally:
        default_metadata()
    told["back"] = Flow(name).latest_run.id == run.id
    return told


if __name__ == "__main__":
    InspectSpunFlow()
