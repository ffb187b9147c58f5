"""What a run tells."""

import pickle

from metaflow import FlowSpec, Run, step


class ClientRunFlow(FlowSpec):
    @step
    def start(self):
        self.a = 1
        self.next(self.end)

    @step
    def end(self):
        self.b = 2


def look(run):
    return {
        "flags": (run.successful, run.finished, run.trigger),
        "data": (run.data.a, run.data.b, "a" in run.data, "c" in run.data),
        "end": run.end_task.pathspec.split("/")[2],
        "steps": sorted(step.id for step in run.steps()),
        "in": ("start" in run, "nowhere" in run),
        "parent": run.parent.id,
        "parts": len(run.path_components),
        "times": run.created_at <= run.finished_at,
        "again": Run(run.pathspec).id == run.id,
        "pickled": pickle.loads(pickle.dumps(run)).pathspec == run.pathspec,
        "origin": run.origin_pathspec in {None, f"{run.parent.id}/None"},
    }


if __name__ == "__main__":
    ClientRunFlow()
