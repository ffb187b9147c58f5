"""Pictures of a graph: an outline for people, and the languages of Graphviz and Mermaid."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from asyncflow.flow.graph import END, START, Fanout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from asyncflow.flow.graph import Graph, Node


def to_text(graph: Graph) -> str:
    """An outline for people: one line for each step, indented once for each open split."""
    lines = [graph.flow]
    indents = _indents(graph)
    for node in graph:
        head = "  " * (indents[node.name] + 1)
        lines.append(f"{head}{_described(node)}")
        if node.doc:
            lines.append(f"{head}    {node.doc.splitlines()[0]}")
    return "\n".join(lines) + "\n"


def to_dot(graph: Graph) -> str:
    """The graph in the language of Graphviz."""
    lines = [f"digraph {_quoted(graph.flow)} {{", "  rankdir=LR;", "  node [shape=box];"]
    for node in graph:
        shape = _DOT_SHAPES.get(_kind(node), "")
        lines.append(f"  {_quoted(node.name)}{f' [shape={shape}]' if shape else ''};")
    for node, target in _edges(graph):
        label = f" [label={_quoted('foreach ' + node.foreach)}]" if node.foreach else ""
        lines.append(f"  {_quoted(node.name)} -> {_quoted(target)}{label};")
    return "\n".join([*lines, "}"]) + "\n"


def to_mermaid(graph: Graph) -> str:
    """The graph in the language of Mermaid, as Markdown pages show it."""
    # `end` is a keyword of Mermaid, so step names are labels and not identifiers.
    ids = {name: f"step{number}" for number, name in enumerate(graph.nodes)}
    lines = ["flowchart LR"]
    for node in graph:
        opening, closing = _MERMAID_SHAPES[_kind(node)]
        lines.append(f'    {ids[node.name]}{opening}"{node.name}"{closing}')
    for node, target in _edges(graph):
        label = f'|"foreach {node.foreach}"|' if node.foreach else ""
        lines.append(f"    {ids[node.name]} -->{label} {ids[target]}")
    return "\n".join(lines) + "\n"


DRAWINGS: Final[Mapping[str, Callable[[Graph], str]]] = {
    "text": to_text,
    "dot": to_dot,
    "mermaid": to_mermaid,
}


_DOT_SHAPES: Final = {"end": "oval", "join": "invhouse", "split": "house"}
_MERMAID_SHAPES: Final = {
    "end": ("([", "])"),
    "join": ("[\\", "/]"),
    "split": ("[/", "\\]"),
    "plain": ("[", "]"),
}


def _kind(node: Node) -> str:
    if node.name in {START, END}:
        return "end"
    if node.is_join:
        return "join"
    return "plain" if node.fanout is Fanout.NONE else "split"


def _edges(graph: Graph) -> Iterator[tuple[Node, str]]:
    return ((node, target) for node in graph for target in node.next)


def _indents(graph: Graph) -> dict[str, int]:
    """How many open splits each step is in."""
    indents: dict[str, int] = {}
    for node in graph:
        if node.joins is not None:
            indents[node.name] = indents[node.joins]
        else:
            leading = graph.previous(node.name)
            split = bool(leading) and graph[leading[0]].fanout is not Fanout.NONE
            indents[node.name] = (indents[leading[0]] if leading else 0) + split
    return indents


def _described(node: Node) -> str:
    marks = [f"joins {node.joins}"] if node.joins is not None else []
    marks += ["async"] if node.is_async else []
    marks += sorted(node.options)
    marks += [f"shares {', '.join(node.shared)}"] if node.shared else []
    remarks = f" ({', '.join(marks)})" if marks else ""
    over = f" for each of {node.foreach}" if node.foreach is not None else ""
    arrow = f" -> {', '.join(node.next)}{over}" if node.next else ""
    return f"{node.name}{remarks}{arrow}"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
