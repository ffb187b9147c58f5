"""A file that is not there."""

from metaflow import FlowSpec, IncludeFile, step


class IncludeFileMissingFlow(FlowSpec):
    text = IncludeFile("text", default="nowhere.txt")

    @step
    def start(self):
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    IncludeFileMissingFlow()
