"""What a flow means: a serial interpreter of random programs, which knows nothing of the engine.

One task after the other, depth first, in this process. A task that fails for good ends its own
chain, and the join behind it is not run; all others are gone on with, for an engine that runs them
side by side may have got to any of them.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tests.durability.chaos.programs import Branch, Chain, Program, Step

Artifacts = dict[str, Any]
Path = tuple[int, ...]


class Caught(NamedTuple):
    """An artifact that tells of a failure that was caught."""

    step: str
    attempt: int
    exception_type: str
    message: str


@dataclass(frozen=True)
class Task:
    """What came of a task."""

    attempts: int
    """How many began."""
    artifacts: Artifacts | None
    """None for one that failed for good."""


@dataclass
class Reference:
    """Interprets a program; what came of each task that could be got to."""

    program: Program
    tasks: dict[tuple[str, Path], Task] = field(default_factory=dict)

    def run(self) -> Reference:
        """Interpret all of it."""
        at_first = self._task(self.program.start, {}, (), None)
        if at_first is not None:
            at_last = self._chain(self.program.chain, at_first, (), None)
            if at_last is not None:
                self._task(self.program.end, at_last, (), None)
        return self

    @property
    def failed(self) -> set[str]:
        """The steps of the tasks that failed for good."""
        return {step for (step, _), task in self.tasks.items() if task.artifacts is None}

    def _chain(
        self, chain: Chain, inherited: Artifacts, path: Path, item: str | None
    ) -> Artifacts | None:
        """The artifacts at the end of a chain; None if one of its tasks failed for good."""
        at: Artifacts | None = inherited
        for part in chain:
            if at is None:
                return None
            if isinstance(part, Step):
                at = self._task(part, at, path, item)
                continue
            split = self._task(part.split, at, path, item)
            if split is None:
                return None
            if isinstance(part, Branch):
                ends = [self._chain(arm, split, path, item) for arm in part.arms]
            else:
                items = [f"{part.split.name}-{number}" for number in range(part.width)]
                split[f"items_{part.split.name}"] = items
                ends = [
                    self._chain(part.body, split, (*path, number), each)
                    for number, each in enumerate(items)
                ]
            inputs = [end for end in ends if end is not None]
            at = None
            if len(inputs) == len(ends):
                at = self._task(part.join, self._joined(inputs), path, item)
        return at

    @staticmethod
    def _joined(inputs: list[Artifacts]) -> Artifacts:
        """What a join of these programs makes of its inputs."""
        joined = {"trail": [each["trail"] for each in inputs]}
        common = [each["common"] for each in inputs if "common" in each]
        return joined | ({"common": common[0]} if common else {})

    def _task(
        self, step: Step, inherited: Artifacts, path: Path, item: str | None
    ) -> Artifacts | None:
        """Run a task with its retries, and its catch."""
        artifacts = deepcopy(inherited)
        index = path[-1] if path else None
        failures = 0
        while step.fails_at(index, failures) and failures <= step.retries:
            failures += 1
        if failures <= step.retries:
            if step.catches:
                artifacts[f"failure_{step.name}"] = None
            if step.failing:
                artifacts.pop("broken", None)
            self._do(step, artifacts, path, item)
            attempts = failures + 1
        elif step.catches:
            caught = Caught(step.name, failures - 1, "ValueError", step.name)
            artifacts |= {"broken": True, f"failure_{step.name}": caught}
            attempts = failures
        else:
            self.tasks[step.name, path] = Task(failures, None)
            return None
        self.tasks[step.name, path] = Task(attempts, artifacts)
        return artifacts

    @staticmethod
    def _do(step: Step, artifacts: Artifacts, path: Path, item: str | None) -> None:
        """What the body of a step does when it does not fail."""
        if step.name == "start":
            artifacts |= {"trail": [], "common": ("c", 1)}
        artifacts["trail"].append(step.name)
        artifacts["own"] = step.name, list(path)
        if path:
            artifacts["item"] = item
        if step.size:
            artifacts["load"] = bytes([sum(path)]) * step.size
