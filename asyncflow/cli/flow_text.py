"""A flow as text, without a run of it: what it says of itself, and its steps."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncflow.flow.graph import Graph
    from asyncflow.flow.node import Node
    from asyncflow.flow.spec import FlowSpec


def flow_lines(flow: type[FlowSpec], graph: Graph) -> Iterator[str]:
    """The docstring of the flow; each step with its decorators, its docstring and the next ones."""
    yield from inspect.cleandoc(flow.__doc__ or flow.__name__).splitlines()
    for node in graph:
        yield ""
        yield f"Step {node.name}"
        yield from (f"    {line}" for line in _about(node))


def _about(node: Node) -> Iterator[str]:
    for name, options in sorted(node.options.items()):
        if name == "own":
            yield from (f"@{each['name']}" for each in options)
        else:
            yield f"@{name}"
    yield from inspect.cleandoc(node.doc or "?").splitlines()
    if node.next:
        over = f" for each of {node.foreach}" if node.foreach is not None else ""
        by = f" by {node.condition}" if node.condition is not None else ""
        yield f"=> {', '.join(node.next)}{over}{by}"
