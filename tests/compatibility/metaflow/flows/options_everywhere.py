"""Options before the command and behind it."""

from pathlib import Path

from metaflow import FlowSpec, Parameter, step


class OptionsEverywhereFlow(FlowSpec):
    size = Parameter("size", default=1)

    @step
    def start(self):
        self.seen = self.size
        self.next(self.end)

    @step
    def end(self):
        pass


def look(run):
    text = Path(__file__).with_name("run-id").read_text(encoding="utf-8")
    return {"written": text.strip() == run.id}


if __name__ == "__main__":
    OptionsEverywhereFlow()
