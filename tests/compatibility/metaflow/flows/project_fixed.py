"""A project whose branch stands in the flow."""

from metaflow import FlowSpec, current, project, step


@project(name="shop", branch="fixed")
class ProjectFixedFlow(FlowSpec):
    @step
    def start(self):
        self.names = (current.project_name, current.branch_name, current.project_flow_name)
        self.flags = (current.is_production, current.is_user_branch)
        self.next(self.end)

    @step
    def end(self):
        pass


def look(run):
    return {"tags": sorted(tag for tag in run.system_tags if tag.startswith("project"))}


if __name__ == "__main__":
    ProjectFixedFlow()
