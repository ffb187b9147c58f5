"""A flow's graph in the form of Metaflow's `current.graph`: dicts, lists and texts."""

from __future__ import annotations

import inspect
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from asyncflow.flow.constants import constants_of
from asyncflow.flow.node import Fanout
from asyncflow.flow.parameters import parameters_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from asyncflow.flow.graph import Graph
    from asyncflow.flow.node import Node
    from asyncflow.flow.spec import FlowSpec


def graph_info(graph: Graph, cls: type[FlowSpec]) -> dict[str, Any]:
    """The graph of a flow class as Metaflow describes it, without its `graph_structure`."""
    parameters = parameters_of(cls)
    return {
        "file": PurePath(graph[graph.start].file).name,
        "doc": inspect.cleandoc(cls.__doc__ or ""),
        "parameters": [
            {"name": name, "type": type(parameter).__name__}
            for name, parameter in parameters.items()
        ],
        "constants": [
            {"name": name, "type": type(value).__name__}
            for name, value in constants_of(cls).items()
        ],
        "decorators": _decorators(graph.options),
        "steps": {node.name: _step(node) for node in graph},
        "start_step": graph.start,
        "end_step": graph.end,
        "extensions": {},
    }


def _step(node: Node) -> dict[str, Any]:
    info: dict[str, Any] = {
        "name": node.name,
        "type": _kind(node),
        "line": node.line,
        "source_file": node.file,
        "doc": node.doc,
        "decorators": _decorators(node.options),
        "next": list(node.next),
        "node_info": {},
    }
    if node.join is not None:
        info["matching_join"] = node.join
    if node.foreach is not None:
        info["foreach_artifact"] = node.foreach
    if node.num_parallel is not None:
        size = node.num_parallel
        info["num_parallel"] = int(size) if size.isdecimal() else size
    if node.condition is not None:
        info["condition"] = node.condition
        info["switch_cases"] = {str(case): step for case, step in node.cases}
    return info


def _kind(node: Node) -> str:
    if node.is_end:
        return "end"
    if node.is_join:
        return "join"
    splits = {
        Fanout.CONDITION: "split-switch",
        Fanout.FOREACH: "split-foreach" if node.foreach is not None else "split-parallel",
        Fanout.BRANCH: "split-static",
    }
    return splits.get(node.fanout, "start" if node.is_start else "linear")


def _decorators(options: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = []
    for name, value in options.items():
        if name == "own":
            found += [
                _decorator(each["name"], {"_args": each["args"], **each["kwargs"]})
                for each in value
            ]
        else:
            attributes = value if isinstance(value, dict) else {"value": value}
            found.append(_decorator(name, {} if value is True else attributes))
    return found


def _decorator(name: str, attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "attributes": dict(attributes),
        "statically_defined": True,
        "inserted_by": None,
    }
