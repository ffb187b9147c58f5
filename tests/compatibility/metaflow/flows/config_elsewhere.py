"""A config's default is a file of the working directory, not of the flow's folder."""

import os
from pathlib import Path

from metaflow import Config, FlowSpec, Runner, step


class ConfigElsewhereFlow(FlowSpec):
    settings = Config("settings", default="settings.json")

    @step
    def start(self):
        self.size = self.settings.size
        self.next(self.end)

    @step
    def end(self):
        pass


def look(run):
    elsewhere = Path(__file__).with_name("elsewhere")
    elsewhere.mkdir()
    (elsewhere / "settings.json").write_text('{"size": 3}', encoding="utf-8")
    with Runner(__file__, show_output=False, env=dict(os.environ), cwd=str(elsewhere)) as runner:
        return {"elsewhere": runner.run().run.data.size}


if __name__ == "__main__":
    ConfigElsewhereFlow()
