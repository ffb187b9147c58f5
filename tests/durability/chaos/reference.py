"""What a flow means: a serial interpreter of random programs, which knows nothing of the engine.

One task after the other, depth first, in this process. A task that fails for good ends its own
chain, and the join behind it is not run; all others are gone on with, for an engine that runs them
side by side may have got to any of them.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from tests.durability.chaos.programs import Branch, Chain, Choice, Each, Gang, Loop, Program, Step
from tests.support.random_graphs import turns_of, with_turns

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
    is_node: bool = False
    """Whether it is of a gang: some of its attempts may have ended before they began."""


class At(NamedTuple):
    """Where the interpreter stands: what the next task inherits, and which one it is."""

    artifacts: Artifacts
    path: Path
    item: str | int | None
    in_loop: bool = False


def indexes(path: Path) -> list[int]:
    """The foreach indexes of a path."""
    return [each for each in path if each >= 0]


@dataclass
class Reference:
    """Interprets a program; what came of each task that could be got to."""

    program: Program
    tasks: dict[tuple[str, Path], Task] = field(default_factory=dict)

    def run(self) -> Reference:
        """Interpret all of it."""
        at_first = self._task(self.program.start, {}, (), None)
        if at_first is not None:
            at_last = self._chain(self.program.chain, At(at_first, (), None))
            if at_last is not None:
                self._task(self.program.end, at_last.artifacts, at_last.path, None)
        return self

    @property
    def failed(self) -> set[str]:
        """The steps of the tasks that failed for good."""
        return {step for (step, _), task in self.tasks.items() if task.artifacts is None}

    def _chain(self, chain: Chain, at: At) -> At | None:
        """Where a chain comes to; None if one of its tasks failed for good."""
        for part in chain:
            match part:
                case Step():
                    gone_on = self._go(part, at)
                case Choice():
                    gone_on = self._choose(part, at)
                case Loop():
                    gone_on = self._repeat(part, at)
                case Branch() | Each():
                    gone_on = self._split(part, at)
            if gone_on is None:
                return None
            at = gone_on
        return at

    def _go(self, step: Step, at: At) -> At | None:
        artifacts = self._task(step, at.artifacts, at.path, at.item)
        return None if artifacts is None else at._replace(artifacts=artifacts)

    def _choose(self, part: Choice, at: At) -> At | None:
        chosen = self._go(part.check, at)
        if chosen is None:
            return None
        arm = sum(indexes(at.path)) % len(part.arms)
        chosen.artifacts[f"arm_{part.check.name}"] = arm
        return self._chain(part.arms[arm], chosen)

    def _repeat(self, part: Loop, at: At) -> At | None:
        name = part.check.name
        in_loop = at.in_loop
        at = at._replace(in_loop=True)
        for turn in range(1, part.turns + 1):
            after_body = self._chain(part.body, at)
            checked = None if after_body is None else self._go(part.check, after_body)
            if checked is None:
                return None
            more = turn < part.turns
            checked.artifacts.update({f"turns_{name}": turn * more, f"more_{name}": more})
            at = checked
            if more:
                at = at._replace(path=with_turns(at.path, turns_of(at.path) + 1))
        return at._replace(path=at.path if in_loop else with_turns(at.path, 0), in_loop=in_loop)

    def _split(self, part: Branch | Each, at: At) -> At | None:
        split = self._go(part.split, at)
        if split is None:
            if isinstance(part, Each) and part.streams:
                self._stream_half(part, at)
            return None
        if isinstance(part, Branch):
            ends = [self._chain(arm, split) for arm in part.arms]
        elif isinstance(part, Gang):
            ends = self._gang(part, split)
        else:
            items = [f"{part.split.name}-{number}" for number in range(part.width)]
            before = split._replace(artifacts={**split.artifacts})
            split.artifacts[f"items_{part.split.name}"] = items
            ends = self._items(part, before if part.streams else split, items)
        inputs = [end for end in ends if end is not None]
        if len(inputs) < len(ends):
            return None
        path = at.path
        if isinstance(part, Branch):
            path = with_turns(path, max(turns_of(end.path) for end in inputs))
        joined = self._joined([end.artifacts for end in inputs])
        return self._go(part.join, at._replace(artifacts=joined, path=path))

    def _items(self, part: Each, split: At, items: list[str]) -> list[At | None]:
        return [
            self._chain(part.body, split._replace(path=(*split.path, number), item=each))
            for number, each in enumerate(items)
        ]

    def _stream_half(self, part: Each, at: At) -> None:
        """Go on with the items that the generator has yielded before it failed for good."""
        inherited = deepcopy(at.artifacts)
        inherited.pop("broken", None)
        self._do(part.split, inherited, at.path, at.item)
        items = [f"{part.split.name}-{number}" for number in range(part.half)]
        self._items(part, at._replace(artifacts=inherited), items)

    def _gang(self, part: Gang, split: At) -> list[At | None]:
        """What comes of the nodes of a gang: where one fails, all are tried again."""
        node = part.node
        numbers = range(part.width)
        failures = 0
        while any(node.fails_at(number, failures) for number in numbers):
            failures += 1
            if failures > node.retries and not node.catches:
                for number in numbers:
                    task = Task(failures, None, is_node=True)
                    self.tasks[node.name, (*split.path, number)] = task
                return [None] * part.width
        sound = node if node.catches else replace(node, parity=None, retries=node.failing)
        ends = [
            self._go(sound, split._replace(path=(*split.path, number), item=number))
            for number in numbers
        ]
        for number in numbers:
            key = node.name, (*split.path, number)
            attempts = min(failures, node.retries) + 1
            self.tasks[key] = replace(self.tasks[key], attempts=attempts, is_node=True)
        return ends

    @staticmethod
    def _joined(inputs: list[Artifacts]) -> Artifacts:
        """What a join of these programs makes of its inputs."""
        joined = {"trail": [each["trail"] for each in inputs]}
        common = [each["common"] for each in inputs if "common" in each]
        turns = {
            name: value for each in inputs for name, value in each.items() if name[:6] == "turns_"
        }
        return joined | ({"common": common[0]} if common else {}) | turns

    def _task(
        self, step: Step, inherited: Artifacts, path: Path, item: str | int | None
    ) -> Artifacts | None:
        """Run a task with its retries, and its catch."""
        artifacts = deepcopy(inherited)
        index = indexes(path)[-1] if indexes(path) else None
        failures = 0
        while step.fails_at(index, failures) and failures <= step.retries:
            failures += 1
        if failures <= step.retries:
            if step.catches:
                artifacts[f"failure_{step.name}"] = None
            if step.is_touched:
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
    def _do(step: Step, artifacts: Artifacts, path: Path, item: str | int | None) -> None:
        """What the body of a step does when it does not fail."""
        if step.name == "start":
            artifacts |= {"trail": [], "common": ("c", 1)}
        artifacts["trail"].append(step.name)
        artifacts["own"] = step.name, indexes(path)
        if indexes(path):
            artifacts["item"] = item
        if step.size:
            artifacts["load"] = bytes([sum(indexes(path))]) * step.size
