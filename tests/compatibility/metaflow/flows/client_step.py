"""What a step tells."""

from metaflow import FlowSpec, Step, step


class ClientStepFlow(FlowSpec):
    @step
    def start(self):
        self.items = [1, 2]
        self.next(self.item, foreach="items")

    @step
    def item(self):
        self.next(self.join)

    @step
    def join(self, inputs):
        self.next(self.end)

    @step
    def end(self):
        pass


def look(run):
    step = run["item"]
    return {
        "id": (step.id, step.parent.id == run.id, len(step.path_components)),
        "tasks": (len(list(step)), len(list(step.tasks())), step.task.parent.id),
        "parents": sorted(each.id for each in step.parent_steps),
        "children": sorted(each.id for each in step.child_steps),
        "ends": (list(run["start"].parent_steps), list(run["end"].child_steps)),
        "times": step.created_at <= step.finished_at,
        "in": (step.task.id in step, "999" in step),
        "control": (step.control_task, list(step.control_tasks())),
        "environment": step.environment_info,
        "again": Step(step.pathspec).id,
    }


if __name__ == "__main__":
    ClientStepFlow()
