"""The message for a step that reads a missing artifact: what is wrong, and what to do."""

from __future__ import annotations

import inspect
from types import FunctionType
from typing import TYPE_CHECKING

from asyncflow._support.suggestions import did_you_mean
from asyncflow.flow.bound_task import artifacts_of, task_of
from asyncflow.flow.join_inputs import lost_in_joins
from asyncflow.flow.node import Fanout

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncflow.flow.graph import Graph
    from asyncflow.flow.node import Node


class MissingArtifact:
    """The message that an artifact does not exist, composed only when it is shown.

    `hasattr(self, "x")` is usual in steps, and must not pay for the search for similar names.
    """

    __slots__ = ("_class", "_graph", "_known", "_name", "_step")

    def __init__(
        self, flow_class: type, name: str, known: Sequence[str], graph: Graph | None, step: str
    ) -> None:
        """Compose nothing yet; `known` are the names that exist, `graph` is None outside a run."""
        self._class, self._name, self._known = flow_class, name, known
        self._graph, self._step = graph, step

    def __str__(self) -> str:
        return f"{self._class.__name__!r} has no artifact {self._name!r} here{self.hint}"

    @property
    def hint(self) -> str:
        """What to do about it, beginning with a semicolon; empty if unknown."""
        hint = did_you_mean(self._name, self._known)
        return hint if self._graph is None else self._hint_of_joins(self._graph, hint)

    def _hint_of_joins(self, graph: Graph, hint: str) -> str:
        passed = graph.before(self._step)
        if graph[self._step].is_join:
            return self._hint_within_join(graph, passed, hint)
        for node in graph:
            if node.foreach == self._name and node.name in passed and self._is_within(graph, node):
                return (
                    f"; {node.name!r} goes on over it, and while a generator yields, there is no "
                    "list of its items: self.input is the item of this task"
                )
        makers = [node.name for node in graph if node.name in passed and self._assigns(node.name)]
        if hint and not makers:
            return hint
        return lost_in_joins(self._name, graph, passed, makers) or hint

    def _hint_within_join(self, graph: Graph, passed: set[str], hint: str) -> str:
        makers = [node for node in graph if node.name in passed and self._assigns(node.name)]
        if hint and not makers:
            return hint
        made, where = "", "from one of the inputs"
        if makers:
            last = makers[-1].name
            made, where = f"{last!r} assigns it, but ", f"as inputs[0].{self._name}"
            if graph[str(graph[self._step].joins)].fanout is Fanout.BRANCH:
                is_input = self._step in graph[last].next
                where = f"as inputs.{last}.{self._name}" if is_input else "from one of the inputs"
        return (
            f"; {made}a join inherits none: read it {where}, or call "
            "self.merge_artifacts(inputs) before"
        )

    def _is_within(self, graph: Graph, splitter: Node) -> bool:
        return graph[self._step].depth > splitter.depth

    def _assigns(self, step: str) -> bool:
        from asyncflow.flow.step_source import read_source

        function = inspect.unwrap(getattr(self._class, step, None))  # type: ignore[arg-type]  # any
        body = read_source(function) if isinstance(function, FunctionType) else None
        return body is not None and self._name in body.assigned

    def __repr__(self) -> str:
        return repr(str(self))


def missing_from(instance: object, name: str) -> MissingArtifact:
    """The message that a flow instance has no such artifact."""
    state = task_of(instance)
    known = [*artifacts_of(instance), *(state.names() if state else ())]
    graph, step = (state.graph, state.step) if state else (None, "")
    return MissingArtifact(type(instance), name, known, graph, step)
