"""A run that was resumed is resumed."""

from pathlib import Path

from metaflow import FlowSpec, current, step


class ResumedTwiceFlow(FlowSpec):
    @step
    def start(self):
        self.log = [current.origin_run_id is not None]
        self.next(self.middle)

    @step
    def middle(self):
        self.log = [*self.log, current.origin_run_id is not None]
        self.next(self.last)

    @step
    def last(self):
        with Path(__file__).with_name("tries").open("a", encoding="utf-8") as file:
            file.write("x")
        if Path(__file__).with_name("tries").stat().st_size < 3:
            raise ValueError("once more")
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    ResumedTwiceFlow()
