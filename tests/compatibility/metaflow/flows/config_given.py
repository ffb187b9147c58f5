"""Values of configurations from the command line."""

from metaflow import Config, FlowSpec, Parameter, step


class ConfigGivenFlow(FlowSpec):
    settings = Config("settings", default_value={"size": 1})
    other = Config("other", default_value={"size": 1})
    size = Parameter("size", default=settings.size)

    @step
    def start(self):
        self.all = (self.settings.size, self.other.size, self.size)
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    ConfigGivenFlow()
