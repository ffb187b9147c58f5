"""One input of a join, as the join's task sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncflow.workers.process.run import stack_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asyncflow.store.value_interface import Later
    from asyncflow.values import ArtifactRef
    from asyncflow.workers.messages import StartTask
    from asyncflow.workers.process.run import Inherited, OpenRun


class JoinInput:
    """What a join can ask of one of its inputs."""

    __slots__ = ("_inherited", "_later", "_order", "_refs", "_run", "graph", "index", "step")

    def __init__(
        self, run: OpenRun, order: StartTask, inherited: Inherited, later: Later | None
    ) -> None:
        self._run, self._order, self._inherited, self._later = run, order, inherited, later
        self._refs: Mapping[str, ArtifactRef] | None = None
        self.step, self.graph = inherited.step, run.graph
        self.index = inherited.path[-1] if inherited.path else None

    def load(self, name: str) -> object:
        """The value of one of the input's artifacts."""
        base = self._run.base
        return (base if name in base else self._inherited).load(name, self._later)

    def refs(self) -> Mapping[str, ArtifactRef]:
        """The input's artifacts, unread."""
        if self._refs is None:
            self._refs = self._inherited.passed_on()
        return self._refs

    def has(self, name: str) -> bool:
        """Whether the input has this artifact."""
        return name in self._inherited or name in self._run.base

    def input(self) -> object:
        """The input's item of the innermost foreach."""
        return self.stack()[-1][2]

    def stack(self) -> list[tuple[int, int | None, object]]:
        """Index, count and item of every foreach around the input, outermost first."""
        stack, path = self._order.stack, self._inherited.path
        return stack_of(self._run, self._called, stack, path, self._later)

    @property
    def _called(self) -> str:
        return f"{self._run.pathspec}/{self.step}/{self._inherited.task_id}"
