"""A value for a configuration that there is not."""

from metaflow import Config, FlowSpec, step


class ConfigUnknownFlow(FlowSpec):
    settings = Config("settings", default_value={"a": 1})

    @step
    def start(self):
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    ConfigUnknownFlow()
