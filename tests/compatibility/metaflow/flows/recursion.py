"""A step that comes again until it has had enough."""

from metaflow import FlowSpec, current, step


class RecursionFlow(FlowSpec):
    @step
    def start(self):
        self.turns = []
        self.next(self.turn)

    @step
    def turn(self):
        self.turns += [len(self.turns)]
        self.seen = (current.step_name, current.retry_count)
        self.more = "again" if len(self.turns) < 4 else "enough"
        self.next({"again": self.turn, "enough": self.end}, condition="more")

    @step
    def end(self):
        self.total = sum(self.turns)


def look(run):
    return {
        "tasks": len(list(run["turn"])),
        "indexes": sorted(str(task.index) for task in run["turn"]),
        "parents of turn": sorted(step.id for step in run["turn"].parent_steps),
        "children of turn": sorted(step.id for step in run["turn"].child_steps),
    }


if __name__ == "__main__":
    RecursionFlow()
