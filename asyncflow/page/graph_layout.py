"""Where the steps of a graph are drawn: columns by the longest way from the start, rows by layers.

Graph in, plain data out. An edge over several columns is led through each of them by a point of
its own, so that it passes no step. Rows are ordered by the mean of the neighbours, a few times to
and fro, then each layer is moved as near to its neighbours as its order lets it. Linear in the
number of steps and points; a graph that needs too many points is drawn with straight edges.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

from asyncflow.card_content.options import card_options
from asyncflow.flow.node import Fanout

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from asyncflow.flow.graph import Graph
    from asyncflow.flow.node import Node

_MOST_POINTS: Final = 20_000
_SWEEPS: Final = 6

_Edge = tuple[str, str]


def graph_data(graph: Graph) -> dict[str, Any]:
    """The graph with a place for each step, as plain data."""
    layout = _Layout(graph)
    return {
        "width": len(layout.layers),
        "height": layout.height,
        "nodes": [
            {
                "step": node.name,
                "x": layout.column[node.name],
                "y": layout.row[layout.point(node.name)],
                **node_data(graph, node),
            }
            for node in graph
        ],
        "edges": [
            {
                "from": node.name,
                "to": target,
                "label": edge_label(node, target),
                "back": graph.leads_back(node.name, target),
                "points": layout.way(node.name, target),
            }
            for node in graph
            for target in node.next
        ],
    }


def node_data(graph: Graph, node: Node) -> dict[str, Any]:
    """What a step is, without its place."""
    return {
        "kind": kind_of(node),
        "async": node.is_async,
        "doc": node.doc,
        "line": node.line,
        "options": sorted(node.options),
        "fanout": str(node.fanout),
        "joins": node.joins,
        "over": node.foreach if node.foreach is not None else node.num_parallel,
        "in_loop": graph.in_loop(node.name),
        "cards": [card.name for card in card_options(node.options.get("card"))],
    }


def kind_of(node: Node) -> str:
    """The shape in which a step is drawn."""
    if node.is_start or node.is_end:
        return "start" if node.is_start else "end"
    if node.is_join:
        return "join"
    if node.is_gang:
        return "gang"
    fanouts = {Fanout.CONDITION: "condition", Fanout.FOREACH: "foreach", Fanout.BRANCH: "split"}
    return fanouts.get(node.fanout, "step")


def edge_label(node: Node, target: str) -> str:
    """The cases of a condition that lead to a step."""
    return ", ".join(str(case) for case, step in node.cases if step == target)


class _Layout:
    """The columns and rows of one graph. A point is a step's, or that of an edge in a column."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self.column = _columns(graph)
        self._points: dict[str, int] = {}
        self._ways: dict[_Edge, list[int]] = {}
        self._before: list[list[int]] = []
        self._after: list[list[int]] = []
        self.layers: list[list[int]] = [
            [] for _ in range(max(self.column.values(), default=-1) + 1)
        ]
        for node in graph:
            self._points[node.name] = self._add(self.column[node.name])
        self._lead_edges()
        self._order()
        self.row = self._place()
        self.height = max(self.row, default=0) + 1 if self.row else 0

    def point(self, step: str) -> int:
        """The number of a step's point."""
        return self._points[step]

    def way(self, step: str, target: str) -> list[list[float]]:
        """The points through which an edge is drawn."""
        first = self.column[step]
        if self._graph.leads_back(step, target):
            ends = ((step, first), (target, self.column[target]))
            return [[column, self.row[self.point(name)]] for name, column in ends]
        points = self._ways.get((step, target)) or [self.point(step), self.point(target)]
        if len(points) == 2:  # noqa: PLR2004 - from a step straight to the other
            return [
                [first, self.row[points[0]]],
                [self.column[target], self.row[points[1]]],
            ]
        return [[first + number, self.row[point]] for number, point in enumerate(points)]

    def _add(self, column: int) -> int:
        number = len(self._before)
        self._before.append([])
        self._after.append([])
        self.layers[column].append(number)
        return number

    def _link(self, before: int, after: int) -> None:
        self._after[before].append(after)
        self._before[after].append(before)

    def _lead_edges(self) -> None:
        forward = [
            (node.name, target)
            for node in self._graph
            for target in node.next
            if not self._graph.leads_back(node.name, target)
        ]
        bends = sum(self.column[target] - self.column[step] - 1 for step, target in forward)
        for step, target in forward:
            points = [self.point(step)]
            if bends <= _MOST_POINTS:
                points += map(self._add, range(self.column[step] + 1, self.column[target]))
            points.append(self.point(target))
            for before, after in pairwise(points):
                self._link(before, after)
            self._ways[step, target] = points

    # --- rows ---

    def _order(self) -> None:
        """Order each layer so that few edges cross."""
        rank: list[float] = [0.0] * len(self._before)
        for layer in self.layers:
            _number(layer, rank)
        for sweep in range(_SWEEPS):
            layers = self.layers if sweep % 2 == 0 else self.layers[::-1]
            neighbours = self._before if sweep % 2 == 0 else self._after
            for layer in layers:
                means = {
                    point: _mean((rank[each] for each in neighbours[point]), rank[point])
                    for point in layer
                }
                layer.sort(key=means.__getitem__)
                _number(layer, rank)

    def _place(self) -> list[float]:
        """The row of each point: at least one apart, as near as can be to its neighbours."""
        row: list[float] = [0.0] * len(self._before)
        for layer in self.layers:
            for at, point in enumerate(layer):
                row[point] = at - (len(layer) - 1) / 2
        for sweep in range(_SWEEPS):
            layers = self.layers if sweep % 2 == 0 else self.layers[::-1]
            neighbours = self._before if sweep % 2 == 0 else self._after
            for layer in layers:
                wanted = [
                    _mean((row[each] for each in neighbours[point]), row[point]) for point in layer
                ]
                for point, found in zip(layer, _apart(wanted), strict=True):
                    row[point] = found
        least = min(row, default=0.0)
        return [round(each - least, 2) for each in row]


def _columns(graph: Graph) -> dict[str, int]:
    """The longest way from the start to each step, in steps; what leads back does not count."""
    columns: dict[str, int] = {}
    for node in graph:  # the steps before it come first
        before = [
            columns[each] + 1
            for each in graph.previous(node.name)
            if each in columns and not graph.leads_back(each, node.name)
        ]
        columns[node.name] = max(before, default=0)
    return columns


def _number(layer: Sequence[int], rank: list[float]) -> None:
    middle = (len(layer) - 1) / 2
    for at, point in enumerate(layer):
        rank[point] = at - middle


def _mean(values: Iterable[float], other: float) -> float:
    found = list(values)
    return sum(found) / len(found) if found else other


def _apart(wanted: Sequence[float]) -> list[float]:
    """Rows in this order, at least one apart, with the least squares of what they are moved by.

    Neighbours that would come too near form a block, which lies at the mean of what they want.
    """
    blocks: list[tuple[float, int]] = []  # the mean of `wanted - place in the layer`, and how many
    for at, each in enumerate(wanted):
        mean, count = each - at, 1
        while blocks and blocks[-1][0] > mean:
            before, others = blocks.pop()
            mean = (before * others + mean * count) / (others + count)
            count += others
        blocks.append((mean, count))
    found: list[float] = []
    for mean, count in blocks:
        found += [mean + at for at in range(len(found), len(found) + count)]
    return found
