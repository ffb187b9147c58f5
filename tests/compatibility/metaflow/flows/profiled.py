"""Time that a block takes."""

from metaflow import FlowSpec, profile, step


class ProfiledFlow(FlowSpec):
    @step
    def start(self):
        times = {}
        with profile("sleeping", stats_dict=times):
            pass
        self.keys = sorted(times)
        self.kind = type(times["sleeping"]).__name__
        with profile("shown"):
            pass
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    ProfiledFlow()
