"""What `current` tells a task."""

from metaflow import FlowSpec, Parameter, current, step


class CurrentFieldsFlow(FlowSpec):
    size = Parameter("size", default=1)

    @step
    def start(self):
        self.names = (current.flow_name, current.step_name, current.parameter_names)
        self.attempt = (current.retry_count, current.origin_run_id, current.is_running_flow)
        self.parts = current.pathspec.split("/") == [
            current.flow_name,
            current.run_id,
            current.step_name,
            current.task_id,
        ]
        self.kinds = [type(current.run_id).__name__, type(current.task_id).__name__]
        self.user = (current.username, current.namespace)
        self.asked = (current.get("step_name"), current.get("nowhere"), current.get("nowhere", 5))
        self.tags = current.tags
        self.no_trigger = current.get("trigger") is None
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    CurrentFieldsFlow()
