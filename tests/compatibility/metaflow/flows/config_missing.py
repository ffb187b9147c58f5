"""A configuration whose file is not there."""

from metaflow import Config, FlowSpec, step


class ConfigMissingFlow(FlowSpec):
    settings = Config("settings", default="nowhere.json")

    @step
    def start(self):
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    ConfigMissingFlow()
