"""A folder for files of a task's own."""

from pathlib import Path

from metaflow import FlowSpec, current, step


class CurrentTempdirFlow(FlowSpec):
    @step
    def start(self):
        self.is_folder = Path(current.tempdir).is_dir()
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    CurrentTempdirFlow()
