"""Four steps in a row: what a step keeps on `self` is there in the next, and in the store.

Run it with `asyncflow run examples/artifact_flow.py` or `python examples/artifact_flow.py run`.
"""

from __future__ import annotations

from asyncflow import FlowSpec, Parameter, step


class ArtifactFlow(FlowSpec):
    """Make an artifact, transform it, look at it."""

    greeting = Parameter("greeting", default="created", help="the state of the artifact at first")

    @step
    def start(self) -> None:
        self.state = self.greeting
        self.history = [self.state]
        self.next(self.transform)

    @step
    def transform(self) -> None:
        print(f"Artifact is in state `{self.state}`")
        self.state = "transformed"
        self.history.append(self.state)
        self.next(self.inspect)

    @step
    def inspect(self) -> None:
        print(f"Artifact went through {len(self.history)} states: {', '.join(self.history)}")
        self.next(self.end)

    @step
    def end(self) -> None:
        print(f"Artifact is in state `{self.state}` with {len(self.history)} states in its history")


if __name__ == "__main__":
    ArtifactFlow()
