"""A resumed run has the configuration of its origin."""

from metaflow import Config, FlowSpec, current, step


class ConfigResumedFlow(FlowSpec):
    settings = Config("settings", default_value={"size": 1})

    @step
    def start(self):
        self.seen = self.settings.size
        self.next(self.end)

    @step
    def end(self):
        self.seen_at_end = self.settings.size
        if current.origin_run_id is None:
            raise ValueError("once")


if __name__ == "__main__":
    ConfigResumedFlow()
