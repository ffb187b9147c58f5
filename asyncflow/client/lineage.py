"""Parents and children of tasks, computed from graph and foreach indexes: no event names them.

A task is known by its step and its path, the foreach indexes from the outside in. A step that fans
out adds an index, the join that closes the split takes it off, and every other step keeps the path.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Protocol

from asyncflow.flow.graph import Fanout

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from asyncflow.flow.graph import Graph, Node
    from asyncflow.store.run_index import TaskTable
    from asyncflow.values import TaskKey

Path = tuple[int, ...]


class Tasks(Protocol):
    """What the lineage needs to know about a run."""

    @property
    def graph(self) -> Graph:
        """The graph that the run follows."""

    def table(self) -> TaskTable:
        """Every task of the run as it is now."""

    def steps(self) -> dict[str, int]:
        """How many tasks each step has by now."""

    def step_number(self, step: str) -> int:
        """The number by which the table knows a step."""

    def path_of(self, task: int) -> tuple[int, ...]:
        """A task's foreach indexes, outermost first."""

    def fanout_of(self, task: int) -> int | None:
        """How many items a task has handed out; None while it has not succeeded."""


class Lineage:
    """Parents and children of one run's tasks, as (step, task id), in the order of items."""

    def __init__(self, record: Tasks) -> None:
        self._record = record
        self._graph = record.graph
        self._siblings: dict[str, tuple[int, dict[Path, Sequence[int]]]] = {}

    def parents(self, key: TaskKey) -> Iterator[tuple[str, int]]:
        """The tasks whose artifacts this one was given."""
        node = self._graph[key.step]
        for step in self._graph.previous(key.step):
            if node.is_join and self._closes_foreach(node):
                found = self._below(step, key.path)
            elif not node.is_join and self._graph[step].fanout is Fanout.FOREACH:
                found = self._at(step, key.path[:-1])
            else:
                found = self._at(step, key.path)
            yield from ((step, task) for task in found)

    def children(self, key: TaskKey) -> Iterator[tuple[str, int]]:
        """The tasks that were given this one's artifacts."""
        fans_out = self._graph[key.step].fanout is Fanout.FOREACH
        for step in self._graph[key.step].next:
            node = self._graph[step]
            if node.is_join and self._closes_foreach(node):
                found = self._at(step, key.path[:-1])
            elif not node.is_join and fans_out:
                found = self._below(step, key.path)
            else:
                found = self._at(step, key.path)
            yield from ((step, task) for task in found)

    def expected(self, step: str) -> int | None:
        """How many tasks a step has when all have begun; None while that is not known."""
        counts: dict[str, int | None] = {}
        for node in self._graph:  # those before it come first
            before = [self._led_to(each, counts[each]) for each in self._graph.previous(node.name)]
            if node.joins is not None:
                counts[node.name] = counts[node.joins]
            elif None in before:
                counts[node.name] = None
            else:
                counts[node.name] = sum(each or 0 for each in before) if before else 1
            if node.name == step:
                break
        return counts[step]

    def _led_to(self, step: str, count: int | None) -> int | None:
        """How many tasks a next step has because of the tasks of this one; None while not known."""
        if count is None or self._graph[step].fanout is not Fanout.FOREACH:
            return count
        record = self._record
        tasks = record.table().tasks_of(record.step_number(step))
        handed_out = [record.fanout_of(task) for task in tasks]
        if len(handed_out) < count or None in handed_out:
            return None
        return sum(each or 0 for each in handed_out)

    def _closes_foreach(self, join: Node) -> bool:
        return join.joins is not None and self._graph[join.joins].fanout is Fanout.FOREACH

    # --- looking tasks up ---

    def _at(self, step: str, path: Path) -> Sequence[int]:
        """The one task with this path, or none."""
        siblings = self._below(step, path[:-1])
        if not path:
            return siblings[:1]
        index_of = self._record.table().index_of
        at = bisect_left(siblings, path[-1], key=index_of)
        found = siblings[at : at + 1]
        return found if found and index_of(found[0]) == path[-1] else ()

    def _below(self, step: str, prefix: Path) -> Sequence[int]:
        """The tasks whose path has one index more than this prefix, in the order of that index."""
        return self._groups(step).get(prefix, ())

    def _groups(self, step: str) -> dict[Path, Sequence[int]]:
        """All tasks of a step, grouped by their path without its last index."""
        begun = self._record.steps().get(step, 0)
        known, groups = self._siblings.get(step, (0, {}))
        if known != begun:  # a path never changes: what is known holds until another task begins
            groups = self._group(step)
            self._siblings[step] = begun, groups
        return groups

    def _group(self, step: str) -> dict[Path, Sequence[int]]:
        record = self._record
        table = record.table()
        tasks = table.tasks_of(record.step_number(step))
        groups: dict[Path, list[int]] = {}
        if self._graph[step].depth <= 1:
            groups[()] = tasks.tolist()
        else:  # the table knows the innermost index alone; the records know the others
            for task in tasks:
                groups.setdefault(record.path_of(task)[:-1], []).append(task)
        for group in groups.values():
            group.sort(key=table.index_of)
        return groups  # type: ignore[return-value] # a dict is invariant: nobody else holds it
