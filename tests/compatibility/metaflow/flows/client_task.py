"""What a task tells."""

import pickle
import sys

from metaflow import FlowSpec, Task, step


class ClientTaskFlow(FlowSpec):
    @step
    def start(self):
        self.number = 1
        self.word = "w"
        print("said")
        print("muttered", file=sys.stderr)
        self.next(self.end)

    @step
    def end(self):
        pass


def look(run):
    task = run["start"].task
    return {
        "id": (task.parent.id, len(task.path_components), task.index),
        "flags": (task.successful, task.finished, task.exception, task.current_attempt),
        "output": (task.stdout, task.stderr),
        "lines": [line for _, line in task.loglines("stdout")],
        "sizes": (task.stdout_size > 0, task.stderr_size > 0),
        "artifacts": sorted(each.id for each in task if each.id != "name"),
        "by name": (task["number"].data, task.artifacts.word.data, task.data.number),
        "in": ("number" in task, "nowhere" in task, "number" in task.data),
        "times": task.created_at <= task.finished_at,
        "environment": task.environment_info,
        "again": Task(task.pathspec).id == task.id,
        "attempt": task.metadata_dict["attempt"],
        "of all": [(type(each.name), type(each.value)) for each in task.metadata][:1],
        "pickled": pickle.loads(pickle.dumps(task)).id == task.id,
        "parents": [list(task.parent_tasks), [each.parent.id for each in task.child_tasks]],
        "paths": len(list(task.child_task_pathspecs)),
    }


if __name__ == "__main__":
    ClientTaskFlow()
