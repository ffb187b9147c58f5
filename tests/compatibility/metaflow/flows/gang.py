"""A gang of three tasks."""

from metaflow import FlowSpec, current, parallel, step


class GangFlow(FlowSpec):
    @step
    def start(self):
        self.base = 10
        self.next(self.node, num_parallel=3)

    @parallel
    @step
    def node(self):
        self.place = current.parallel.node_index
        self.of = current.parallel.num_nodes
        self.has_main = bool(current.parallel.main_ip)
        self.is_control = current.parallel.control_task_id == current.task_id
        self.same = (self.index, self.input)
        self.next(self.join)

    @step
    def join(self, inputs):
        self.places = sorted(each.place for each in inputs)
        self.controls = sum(each.is_control for each in inputs)
        self.next(self.end)

    @step
    def end(self):
        pass


def look(run):
    return {
        "control": run["node"].control_task["place"].data,
        "controls": len(list(run["node"].control_tasks())),
        "of others": (run["start"].control_task, len(list(run["start"].control_tasks()))),
        "indexes": sorted(task.index for task in run["node"]),
    }


if __name__ == "__main__":
    GangFlow()
