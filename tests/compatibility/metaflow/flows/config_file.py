"""A configuration from a file that has a default place."""

from metaflow import Config, FlowSpec, step


class ConfigFileFlow(FlowSpec):
    settings = Config("settings", default="settings.json")
    toml = Config("toml", default="settings.toml", parser="tomllib.loads")

    @step
    def start(self):
        self.all = (self.settings.size, self.toml.part.size)
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    ConfigFileFlow()
