"""Without a project `current` knows none."""

from metaflow import FlowSpec, current, step


class ProjectNoneFlow(FlowSpec):
    @step
    def start(self):
        self.has = (hasattr(current, "project_name"), current.get("project_name", "none"))
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    ProjectNoneFlow()
