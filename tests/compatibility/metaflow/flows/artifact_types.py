"""Objects of classes that stand in the flow's file stay within a run."""

from dataclasses import dataclass

from metaflow import FlowSpec, step


@dataclass(frozen=True)
class Place:
    x: int
    y: int


class ArtifactTypesFlow(FlowSpec):
    @step
    def start(self):
        self._place = Place(1, 2)
        self.next(self.end)

    @step
    def end(self):
        self.seen = (self._place.x, self._place == Place(1, 2))


if __name__ == "__main__":
    ArtifactTypesFlow()
