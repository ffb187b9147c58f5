"""`current.run` and `current.task` are the client's objects."""

from metaflow import FlowSpec, current, step


class CurrentRunFlow(FlowSpec):
    @step
    def start(self):
        self.mark = 1
        self.same = current.run.id == current.run_id and current.task.id == current.task_id
        self.next(self.end)

    @step
    def end(self):
        self.earlier = current.run["start"].task["mark"].data
        self.unfinished = (current.run.successful, current.run.finished, current.task.successful)
        self.where = current.task.parent.id


if __name__ == "__main__":
    CurrentRunFlow()
