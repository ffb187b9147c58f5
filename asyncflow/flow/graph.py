"""The graph of a flow: which steps it has, and which step follows which.

A `Graph` is immutable, and making one checks its structure: `asyncflow.flow.graph_checks` has the
rules. `asyncflow.flow.graph_reader` reads a graph from a class, and `asyncflow.flow.graph_drawing`
draws it.
"""

from __future__ import annotations

import copy
from dataclasses import field
from typing import TYPE_CHECKING, Any, Final

from asyncflow._quick_classes import dataclass
from asyncflow.errors import GraphError
from asyncflow.flow.graph_checks import arrange
from asyncflow.flow.node import Node
from asyncflow.values import repetitions_of, with_repetitions

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping


@dataclass(frozen=True, slots=True, init=False, repr=False)
class Graph:
    """The checked steps of a flow in topological order: each comes after those that lead to it.

    A step that a condition repeats comes before the step that leads back to it. Iterating gives the
    nodes in that order; `graph["train"]` is one of them.
    """

    flow: str
    nodes: Mapping[str, Node] = field(hash=False)
    start: str = field(hash=False, compare=False)
    """The name of the first step."""
    end: str = field(hash=False, compare=False)
    """The name of the last step."""
    options: Mapping[str, Any] = field(hash=False)
    """What the decorators of the flow class say, as plain data, by their names."""
    _previous: Mapping[str, tuple[str, ...]] = field(hash=False, compare=False)
    _back: frozenset[tuple[str, str]] = field(hash=False, compare=False)
    _loops: Mapping[str, int] = field(hash=False, compare=False)
    _has_conditions: bool = field(hash=False, compare=False)

    def __init__(
        self, flow: str, nodes: Iterable[Node], options: Mapping[str, Any] | None = None
    ) -> None:
        """Check the steps, given in any order, and sort them.

        Raises:
            GraphError: The steps do not form a graph that can be run.
        """
        arranged = arrange(flow, nodes)
        object.__setattr__(self, "flow", flow)
        object.__setattr__(self, "nodes", arranged.nodes)
        object.__setattr__(self, "start", arranged.start)
        object.__setattr__(self, "end", arranged.end)
        object.__setattr__(self, "options", dict(options or {}))
        object.__setattr__(self, "_previous", arranged.previous)
        object.__setattr__(self, "_back", arranged.back)
        object.__setattr__(self, "_loops", arranged.loops)
        conditions = any(node.condition is not None for node in arranged.nodes.values())
        object.__setattr__(self, "_has_conditions", conditions)

    def __getitem__(self, name: str) -> Node:
        return self.nodes[name]

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes.values())

    def __len__(self) -> int:
        return len(self.nodes)

    def __contains__(self, name: object) -> bool:
        return name in self.nodes

    def __repr__(self) -> str:
        return f"<Graph {self.flow}: {', '.join(self.nodes)}>"

    def with_options(self, options: Mapping[str, Any]) -> Graph:
        """The same steps with other options of the flow."""
        made = copy.copy(self)
        object.__setattr__(made, "options", dict(options))
        return made

    def previous(self, name: str) -> tuple[str, ...]:
        """The steps that lead to this one; to a join, in the order of its split's branches."""
        return self._previous[name]

    @property
    def has_conditions(self) -> bool:
        """Whether a step chooses between those that follow it."""
        return self._has_conditions

    def onward(self, name: str, target: str, path: tuple[int, ...]) -> tuple[int, ...]:
        """The path of the task of a next step, in the same branch.

        It is the same path, unless the next step repeats steps, or is outside of the loop in which
        they were repeated.
        """
        if not self._back:
            return path
        if (name, target) in self._back:
            return with_repetitions(path, repetitions_of(path) + 1)
        if self._loops.get(name) == self._loops.get(target):
            return path
        return with_repetitions(path, 0)

    def in_loop(self, name: str) -> bool:
        """Whether a condition can repeat this step."""
        return name in self._loops

    def leads_back(self, name: str, target: str) -> bool:
        """Whether going from a step to this next one repeats steps."""
        return (name, target) in self._back

    def before(self, name: str) -> set[str]:
        """All steps that lead to this one, directly or through others."""
        found: set[str] = set()
        pending = [name]
        while pending:
            new = set(self._previous[pending.pop()]) - found
            found |= new
            pending += new
        return found

    def within(self, name: str) -> set[str]:
        """All steps between a split and its join."""
        node = self.nodes[name]
        found: set[str] = set()
        pending = list(node.next)
        while pending:
            new = pending.pop()
            if new != node.join and new not in found:
                found.add(new)
                pending += self.nodes[new].next
        return found

    # --- as plain data ---

    def to_data(self) -> dict[str, Any]:
        """The graph as dicts, lists and scalars, as a run's first event holds it."""
        return {
            "flow": self.flow,
            "steps": [_node_data(node) for node in self],
            "options": dict(self.options),
        }

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Graph:
        """Make the graph from the result of `to_data`; unknown fields are ignored.

        Raises:
            GraphError: The data do not describe a graph that can be run.
        """
        try:
            nodes = [_node_of(step) for step in data["steps"]]
            return cls(data["flow"], nodes, _flow_options(data.get("options", {})))
        except (KeyError, TypeError, ValueError) as error:
            message = f"these are not the data of a graph: {type(error).__name__}: {error}"
            raise GraphError(message) from error


# --- data -------------------------------------------------------------------------------------


def _node_data(node: Node) -> dict[str, Any]:
    return {
        "name": node.name,
        "next": list(node.next),
        "fanout": str(node.fanout),
        "foreach": node.foreach,
        "condition": node.condition,
        "cases": [list(case) for case in node.cases],
        "num_parallel": node.num_parallel,
        "is_join": node.is_join,
        "is_async": node.is_async,
        "is_start": node.is_start,
        "is_end": node.is_end,
        "joins": node.joins,
        "join": node.join,
        "depth": node.depth,
        "line": node.line,
        "file": node.file,
        "doc": node.doc,
        "options": dict(node.options),
        "shared": list(node.shared),
    }


_NODE_TYPES: Final = {
    "name": str,
    "next": list,
    "foreach": str | None,
    "is_join": bool,
    "is_async": bool,
    "line": int,
    "file": str,
    "doc": str,
    "options": dict,
}


def _node_of(step: Mapping[str, Any]) -> Node:
    for name, types in _NODE_TYPES.items():
        if not isinstance(step[name], types):
            message = f"{name!r} of a step cannot be {step[name]!r:.40}"
            raise TypeError(message)
    if not all(isinstance(name, str) for name in (*step["next"], *step.get("shared", ()))):
        raise TypeError("the name of a step, or of what it shares, is not text")
    condition, num_parallel = step.get("condition"), step.get("num_parallel")
    for name, value in (("condition", condition), ("num_parallel", num_parallel)):
        if not isinstance(value, str | None):
            message = f"{name!r} of a step cannot be {value!r:.40}"
            raise TypeError(message)
    return Node(
        name=step["name"],
        next=tuple(step["next"]),
        foreach=step["foreach"],
        is_join=step["is_join"],
        is_async=step["is_async"],
        condition=condition,  # runs of earlier versions have none of these
        cases=tuple(_case_of(each) for each in step.get("cases", ())),
        num_parallel=num_parallel,
        is_start=step.get("is_start") is True,
        is_end=step.get("is_end") is True,
        line=step["line"],
        file=step["file"],
        doc=step["doc"],
        options=step["options"],
        shared=tuple(step.get("shared", ())),
    )


def _flow_options(options: object) -> dict[str, Any]:
    if not isinstance(options, dict) or not all(isinstance(name, str) for name in options):
        message = f"the options of a flow cannot be {options!r:.40}"
        raise TypeError(message)
    return options


def _case_of(pair: Any) -> tuple[Any, str]:
    case, step = pair
    if not isinstance(case, str | int | float | None) or not isinstance(step, str):
        message = f"a case of a condition cannot be {pair!r:.40}"
        raise TypeError(message)
    return case, step
