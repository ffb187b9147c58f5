"""A configuration that must be given is not."""

from metaflow import Config, FlowSpec, step


class ConfigRequiredFlow(FlowSpec):
    settings = Config("settings", required=True)

    @step
    def start(self):
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    ConfigRequiredFlow()
