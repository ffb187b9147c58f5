"""Parents and children of tasks.

A task is identified by its step and its path, the foreach indexes from the outside in. A step that
fans out adds an index, the join that closes the split removes it, and every other step keeps the
path. So in most flows the graph and the paths say which task follows which, and no event names
parents.

In a flow with conditions they do not: which of several steps came before depends on the run. There
the record of a task's start names its parents, except for the join of a foreach. Its parents are
found by path, as in other flows: for each item, the task that went on to the join.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Protocol

from asyncflow.flow.node import Fanout
from asyncflow.values import last_index_of, with_repetitions

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from asyncflow.events.types import TaskCloned, TaskSucceeded
    from asyncflow.flow.graph import Graph
    from asyncflow.flow.node import Node
    from asyncflow.store.task_table import TaskTable
    from asyncflow.values import TaskKey

Path = tuple[int, ...]


def _around_item(path: Path) -> Path:
    """The path of the foreach that contains an item's path."""
    return with_repetitions(path, 0)[:-1]


class Tasks(Protocol):
    """What the lineage needs to know about a run."""

    @property
    def graph(self) -> Graph:
        """The graph that the run follows."""

    def table(self) -> TaskTable:
        """Every task of the run as it is now."""

    def steps(self) -> dict[str, int]:
        """How many tasks of each step have begun."""

    def step_number(self, step: str) -> int:
        """The number of a step in the table."""

    def path_of(self, task: int) -> tuple[int, ...]:
        """A task's foreach indexes, outermost first."""

    def parents_of(self, task: int) -> tuple[int, ...]:
        """The parents of a task, if its record names them."""

    def outcome_of(self, task: int) -> TaskSucceeded | TaskCloned | None:
        """The event with a task's result; None while it has not succeeded."""


class Lineage:
    """Parents and children of one run's tasks, as (step, task id), in the order of items."""

    def __init__(self, record: Tasks) -> None:
        self._record = record
        self._graph = record.graph
        self._siblings: dict[str, tuple[int, dict[Path, Sequence[int]]]] = {}
        self._followers: dict[str, tuple[int, dict[int, list[int]]]] = {}

    def parents(self, task: int, key: TaskKey) -> Iterator[tuple[str, int]]:
        """The tasks whose artifacts this one inherited."""
        node = self._graph[key.step]
        if not self._graph.has_conditions:
            yield from self._parents_by_path(node, key)
        elif self._closes_foreach(node):
            yield from self._arrived(node, key.path)
        else:
            yield from ((self._step_of(parent), parent) for parent in self._record.parents_of(task))

    def _parents_by_path(self, node: Node, key: TaskKey) -> Iterator[tuple[str, int]]:
        for step in self._graph.previous(key.step):
            if self._closes_foreach(node):
                found = self._below(step, key.path)
            elif not node.is_join and self._graph[step].fanout is Fanout.FOREACH:
                found = self._at(step, key.path[:-1])
            else:
                found = self._at(step, key.path)
            yield from ((step, task) for task in found)

    def children(self, task: int, key: TaskKey) -> Iterator[tuple[str, int]]:
        """The tasks that inherited this one's artifacts."""
        if not self._graph.has_conditions:
            yield from self._children_by_path(key)
            return
        for step in self._went_on_to(task, self._graph[key.step]):
            if self._closes_foreach(self._graph[step]):
                found: Sequence[int] = self._with_path(step, _around_item(key.path))
            else:
                found = self._followers_in(step).get(task, ())
            yield from ((step, each) for each in found)

    def _children_by_path(self, key: TaskKey) -> Iterator[tuple[str, int]]:
        fans_out = self._graph[key.step].fanout is Fanout.FOREACH
        for step in self._graph[key.step].next:
            node = self._graph[step]
            if self._closes_foreach(node):
                found = self._at(step, key.path[:-1])
            elif not node.is_join and fans_out:
                found = self._below(step, key.path)
            else:
                found = self._at(step, key.path)
            yield from ((step, task) for task in found)

    def steps_before(self, step: str) -> Iterator[str]:
        """The steps that a step followed in this run, in the order of the graph."""
        previous = set(self._graph.previous(step))
        return (name for name in self._graph.nodes if name in previous and self._led(name, step))

    def steps_after(self, step: str) -> Iterator[str]:
        """The steps that have followed a step in this run, in the order of the graph."""
        following = set(self._graph[step].next)
        return (name for name in self._graph.nodes if name in following and self._led(step, name))

    def _led(self, step: str, following: str) -> bool:
        """Whether a task of one step was followed by one of the other."""
        begun = self._record.steps()
        if step not in begun or following not in begun:
            return False
        node = self._graph[step]
        if node.condition is None:
            return True
        return any(following in self._went_on_to(task, node) for task in self._tasks_of(step))

    def expected(self, step: str) -> int | None:
        """How many tasks a step will have in all; None while that is not known."""
        return self._expected(step)[step]

    def expected_of_all(self) -> dict[str, int | None]:
        """The same for each step."""
        return self._expected(None)

    def _expected(self, last: str | None) -> dict[str, int | None]:
        counts: dict[str, int | None] = {}
        for node in self._graph:  # the steps before it come first
            # A step that leads back comes later, and how often it does so is not known.
            leading = self._graph.previous(node.name)
            before = [self._led_to(each, counts.get(each)) for each in leading]
            if node.joins is not None:
                counts[node.name] = counts[node.joins]
            elif node.is_end:
                counts[node.name] = 1
            elif self._graph.in_loop(node.name) or len(before) > 1 or None in before:
                counts[node.name] = None
            else:
                counts[node.name] = sum(each or 0 for each in before) if before else 1
            if node.name == last:
                break
        return counts

    def _led_to(self, step: str, count: int | None) -> int | None:
        """How many tasks of a next step follow from those of this one; None while not known."""
        if self._graph[step].fanout is Fanout.CONDITION:
            return None
        if count is None or self._graph[step].fanout is not Fanout.FOREACH:
            return count
        ended = [self._record.outcome_of(task) for task in self._tasks_of(step)]
        if len(ended) < count or None in ended:
            return None
        return sum((each and each.fanout) or 0 for each in ended)

    def _closes_foreach(self, join: Node) -> bool:
        return join.joins is not None and self._graph[join.joins].fanout is Fanout.FOREACH

    # --- with conditions ---

    def _went_on_to(self, task: int, node: Node) -> tuple[str, ...]:
        """The steps that a task has led to."""
        if node.condition is None:
            return node.next
        ended = self._record.outcome_of(task)
        return (ended.choice,) if ended is not None and ended.choice in node.next else ()

    def _arrived(self, join: Node, around: Path) -> Iterator[tuple[str, int]]:
        """For each item of a foreach, the task that went on to its join."""
        found = []
        for step in self._graph.previous(join.name):
            for task in self._tasks_of(step):
                path = self._record.path_of(task)
                if _around_item(path) == around and join.name in self._went_on_to(
                    task, self._graph[step]
                ):
                    found.append((last_index_of(path), step, task))
        return ((step, task) for _, step, task in sorted(found))

    def _with_path(self, step: str, path: Path) -> list[int]:
        return [task for task in self._tasks_of(step) if self._record.path_of(task) == path]

    def _followers_in(self, step: str) -> dict[int, list[int]]:
        """The tasks of a step by the tasks that they follow."""
        begun = self._record.steps().get(step, 0)
        known, followers = self._followers.get(step, (0, {}))
        if known != begun:  # parents never change
            followers = {}
            for task in self._tasks_of(step):
                for parent in self._record.parents_of(task):
                    followers.setdefault(parent, []).append(task)
            self._followers[step] = begun, followers
        return followers

    def _tasks_of(self, step: str) -> Sequence[int]:
        record = self._record
        return record.table().tasks_of(record.step_number(step))

    def _step_of(self, task: int) -> str:
        number = self._record.table()[task].step
        return next(step for step in self._graph.nodes if self._record.step_number(step) == number)

    # --- looking tasks up ---

    def _at(self, step: str, path: Path) -> Sequence[int]:
        """The task with this path, if there is one."""
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
        # a path never changes, so the groups stay right until another task begins
        if known != begun:
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
        else:  # the table has only the innermost index; the records have them all
            for task in tasks:
                groups.setdefault(record.path_of(task)[:-1], []).append(task)
        for group in groups.values():
            group.sort(key=table.index_of)
        return groups  # type: ignore[return-value] # a dict is invariant: nobody else holds it
