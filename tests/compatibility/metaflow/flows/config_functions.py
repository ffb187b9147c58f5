"""Defaults of configurations that are found out."""

from metaflow import Config, FlowSpec, step


class ConfigFunctionsFlow(FlowSpec):
    settings = Config("settings", default_value=lambda context: {"flow": context.flow_name})
    text = Config(
        "text", default_value=lambda context: '{"name": "' + context.parameter_name + '"}'
    )

    @step
    def start(self):
        self.seen = (self.settings.flow, self.text.name)
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    ConfigFunctionsFlow()
