"""A configuration that is not JSON."""

from metaflow import Config, FlowSpec, step


class ConfigMalformedFlow(FlowSpec):
    settings = Config("settings", default_value="{")

    @step
    def start(self):
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    ConfigMalformedFlow()
