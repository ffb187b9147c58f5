"""A step that calls the one it replaces."""

from metaflow import FlowSpec, step


class Base(FlowSpec):
    @step
    def start(self):
        self.said = ["start"]
        self.next(self.end)

    @step
    def end(self):
        self.said += ["base"]


class InheritedSuperFlow(Base):
    @step
    def end(self):
        super().end()
        self.said += ["derived"]


if __name__ == "__main__":
    InheritedSuperFlow()
