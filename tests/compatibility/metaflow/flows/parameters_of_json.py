"""Parameters whose default is a dict, a list in text, or a configuration's part."""

from metaflow import Config, FlowSpec, JSONType, Parameter, step


class ParametersOfJsonFlow(FlowSpec):
    settings = Config("settings", default_value={"part": {"a": 1}, "size": 3})
    made = Parameter("made", type=JSONType, default={"y": [2]})
    text = Parameter("text", type=JSONType, default="[1, 2]")
    part = Parameter("part", type=JSONType, default=settings.part)
    size = Parameter("size", default=settings.size)

    @step
    def start(self):
        self.seen = (self.made, self.text, dict(self.part), self.size)
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    ParametersOfJsonFlow()
