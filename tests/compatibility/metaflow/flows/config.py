"""A configuration: dotted, immutable, and an artifact."""

from metaflow import Config, FlowSpec, current, step


def pairs(text):
    return dict(pair.split("=") for pair in text.split(";"))


class ConfigFlow(FlowSpec):
    settings = Config(
        "settings", default_value={"a": {"b": 3, "list": [1, {"deep": 2}]}, "name": "n"}
    )
    parsed = Config("parsed", default_value="x=1;y=2", parser=pairs)
    listed = Config("listed", default_value="[1, 2]", parser="json.loads", plain=True)
    absent = Config("absent")

    @step
    def start(self):
        self.dotted = (self.settings.a.b, self.settings["a"]["b"], self.settings.a.list[1].deep)
        self.asked = (self.settings.get("nowhere", 5), list(self.settings), "a" in self.settings)
        self.is_dict = isinstance(self.settings, dict)
        self.kept = self.settings.a
        self.others = (self.parsed.x, self.parsed["y"], self.listed, self.absent)
        self.refused = []
        for change in (
            lambda: setattr(self.settings, "a", 1),
            lambda: self.settings.update(a=1),
            lambda: setattr(self, "settings", 1),
            lambda: self.settings.nowhere,
            lambda: self.settings["nowhere"],
        ):
            try:
                change()
            except (TypeError, AttributeError, KeyError) as error:
                self.refused.append(type(error).__name__)
        self.next(self.end)

    @step
    def end(self):
        self.kept_later = self.kept.b
        self.names = sorted(current.parameter_names)


def look(run):
    return {"plain": type(run["start"].task["settings"].data).__name__, "kept": dict(run.data.kept)}


if __name__ == "__main__":
    ConfigFlow()
