"""A loop goes on where it has failed."""

from metaflow import FlowSpec, current, step


class ResumedRecursionFlow(FlowSpec):
    @step
    def start(self):
        self.count = 0
        self.next(self.turn)

    @step
    def turn(self):
        self.count += 1
        self.resumed = current.origin_run_id is not None
        if self.count == 3 and not self.resumed:
            raise ValueError("the third")
        self.more = "yes" if self.count < 4 else "no"
        self.next({"yes": self.turn, "no": self.end}, condition="more")

    @step
    def end(self):
        pass


if __name__ == "__main__":
    ResumedRecursionFlow()
