"""Files that are kept with the run."""

from pathlib import Path

from metaflow import FlowSpec, IncludeFile, step


def beside(name):
    return str(Path(__file__).with_name(name))


class IncludeFileFlow(FlowSpec):
    text = IncludeFile("text", default=beside("note.txt"))
    raw = IncludeFile("raw", default=beside("note.txt"), is_text=False)
    latin = IncludeFile("latin", default=beside("note.txt"), encoding="latin-1")
    given = IncludeFile("given", help="Given on the command line.")
    absent = IncludeFile("absent")

    @step
    def start(self):
        self.all = (self.text, self.raw, self.latin, self.given, self.absent)
        self.next(self.end)

    @step
    def end(self):
        pass


def look(run):
    return {
        "text": run["start"].task["text"].data,
        "names": sorted(a.id for a in run["end"].task if a.id != "name"),
    }


if __name__ == "__main__":
    IncludeFileFlow()
