"""Random graphs, and what a run of them should do, worked out serially."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from asyncflow.flow.graph import Graph, Node


@dataclass
class Shape:
    """A piece of a flow between two steps: a chain of plain steps, branches and foreachs."""

    parts: list[Any] = field(default_factory=list)


@dataclass
class Branch:
    """Several shapes side by side."""

    arms: list[Shape]


@dataclass
class Each:
    """A shape for each of several items."""

    width: int
    body: Shape


def shapes(depth=3):
    """Shapes of bounded size."""
    if depth == 0:
        return st.builds(Shape, st.lists(st.just("step"), max_size=2))
    inner = shapes(depth - 1)
    part = st.one_of(
        st.just("step"),
        st.builds(Branch, st.lists(inner, min_size=2, max_size=3)),
        st.builds(Each, st.integers(0, 3), inner),
    )
    return st.builds(Shape, st.lists(part, max_size=3))


class Built:
    """The graph of a shape, the width of each foreach, and every task that a run has."""

    def __init__(self, shape: Shape) -> None:
        self.nodes: list[Node] = []
        self.widths: dict[str, int] = {}
        self._count = 0
        first = self._chain(shape, "end")
        self.nodes.append(Node("start", (first,)))
        self.nodes.append(Node("end"))
        self.graph = Graph("Random", self.nodes)
        self.tasks = sorted(self._tasks())

    def _name(self, kind: str) -> str:
        self._count += 1
        return f"{kind}{self._count}"

    def _chain(self, shape: Shape, after: str) -> str:
        """Build the parts from the last to the first; the name of the first step."""
        for part in reversed(shape.parts):
            after = self._part(part, after)
        return after

    def _part(self, part, after: str) -> str:
        if part == "step":
            name = self._name("step")
            self.nodes.append(Node(name, (after,)))
            return name
        join, split = self._name("join"), self._name("split")
        self.nodes.append(Node(join, (after,), is_join=True))
        if isinstance(part, Each):
            body = Shape(["step", *part.body.parts])  # a foreach needs at least one step
            self.widths[split] = part.width
            self.nodes.append(Node(split, (self._chain(body, join),), foreach="items"))
        else:
            arms = [Shape(["step", *arm.parts]) for arm in part.arms]
            self.nodes.append(Node(split, tuple(self._chain(arm, join) for arm in arms)))
        return split

    def _tasks(self):
        """Every task of a run, found by walking the graph step by step without any plan."""
        paths: dict[str, set[tuple[int, ...]]] = {"start": {()}}
        for name in self.graph.nodes:
            for path in paths.get(name, set()):
                yield name, path
            node = self.graph[name]
            for following in node.next:
                target = paths.setdefault(following, set())
                for path in paths.get(name, set()):
                    if name in self.widths:
                        target |= {(*path, index) for index in range(self.widths[name])}
                    elif not self.graph[following].is_join:
                        target.add(path)
            if node.join is not None:
                paths.setdefault(node.join, set()).update(paths.get(name, set()))
