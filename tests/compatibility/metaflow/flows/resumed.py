"""What has succeeded is taken over, the rest is run."""

from metaflow import FlowSpec, current, step


class ResumedFlow(FlowSpec):
    @step
    def start(self):
        self.made_by = current.origin_run_id is None
        self.items = [1, 2, 3]
        self.next(self.item, foreach="items")

    @step
    def item(self):
        self.square = self.input**2
        self.resumed = current.origin_run_id is not None
        self.next(self.join)

    @step
    def join(self, inputs):
        self.resumed = [each.resumed for each in inputs]
        if current.origin_run_id is None:
            raise ValueError("once")
        self.squares = [each.square for each in inputs]
        self.next(self.end)

    @step
    def end(self):
        self.is_resumed = current.origin_run_id is not None


def look(run):
    first = run["start"].task
    return {
        "origin": run.origin_pathspec == f"{run.parent.id}/{run.origin_pathspec.split('/')[1]}",
        "of a task": first.origin_pathspec.split("/")[2:],
        "tags": sorted(run.user_tags),
    }


if __name__ == "__main__":
    ResumedFlow()
