"""The name of a project has small letters, digits and underscores."""

from metaflow import FlowSpec, current, project, step


@project(name="My Shop")
class ProjectBadNameFlow(FlowSpec):
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
    ProjectBadNameFlow()
