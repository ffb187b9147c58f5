"""A project whose name comes from a configuration."""

from metaflow import Config, FlowSpec, config_expr, current, project, step


@project(name=config_expr("settings.name"))
class ConfigProjectFlow(FlowSpec):
    settings = Config("settings", default_value={"name": "shop"})

    @step
    def start(self):
        self.names = (current.project_name, current.project_flow_name)
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    ConfigProjectFlow()
