"""One task is run again with other artifacts."""

from pathlib import Path

from metaflow import FlowSpec, step


class SpunChangedFlow(FlowSpec):
    @step
    def start(self):
        self.number = 4
        self.next(self.end)

    @step
    def end(self):
        with Path(__file__).with_name("spun").open("a", encoding="utf-8") as file:
            file.write(f"{self.number} ")


def look(run):
    return {"said": Path(__file__).with_name("spun").read_text(encoding="utf-8")}


if __name__ == "__main__":
    SpunChangedFlow()
