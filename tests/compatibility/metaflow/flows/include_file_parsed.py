"""A file whose text is parsed."""

from pathlib import Path

from metaflow import FlowSpec, IncludeFile, step


def beside(name):
    return str(Path(__file__).with_name(name))


class IncludeFileParsedFlow(FlowSpec):
    table = IncludeFile("table", default=beside("table.json"), parser="json.loads")
    lines = IncludeFile("lines", default=beside("table.json"), parser=str.splitlines)

    @step
    def start(self):
        self.all = (self.table, len(self.lines))
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    IncludeFileParsedFlow()
