"""A case whose key comes from a configuration."""

from metaflow import Config, FlowSpec, step


class ConfigCaseFlow(FlowSpec):
    settings = Config("settings", default_value={"first": "one", "second": "two"})

    @step
    def start(self):
        self.kind = "two"
        self.next({self.settings.first: self.one, self.settings.second: self.two}, condition="kind")

    @step
    def one(self):
        self.next(self.end)

    @step
    def two(self):
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    ConfigCaseFlow()
