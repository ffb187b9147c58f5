"""Steps and tasks by tags."""

from metaflow import Flow, FlowSpec, step


class ClientTagsFlow(FlowSpec):
    @step
    def start(self):
        self.next(self.end)

    @step
    def end(self):
        pass


def look(run):
    return {
        "steps": sorted(step.id for step in run.steps("one")),
        "no steps": list(run.steps("nowhere")),
        "tasks": len(list(run["start"].tasks("one"))),
        "no tasks": list(run["start"].tasks("nowhere")),
        "runs": [len(list(Flow(run.parent.id).runs(tag))) for tag in ("one", "nowhere")],
        "system": any(tag.startswith("user:") for tag in run.system_tags),
    }


if __name__ == "__main__":
    ClientTagsFlow()
