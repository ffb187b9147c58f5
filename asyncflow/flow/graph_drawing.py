"""Pictures of a graph: an outline for people, and the languages of Graphviz and Mermaid."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from asyncflow.flow.node import Fanout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from asyncflow.flow.graph import Graph
    from asyncflow.flow.node import Node


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
        text = _label(node, target)
        label = f" [label={_quoted(text)}]" if text else ""
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
        text = _label(node, target)
        label = f'|"{_entities(text)}"|' if text else ""
        lines.append(f"    {ids[node.name]} -->{label} {ids[target]}")
    return "\n".join(lines) + "\n"


DRAWINGS: Final[Mapping[str, Callable[[Graph], str]]] = {
    "text": to_text,
    "dot": to_dot,
    "mermaid": to_mermaid,
}


_DOT_SHAPES: Final = {
    "end": "oval",
    "join": "invhouse",
    "split": "house",
    "condition": "diamond",
}
_MERMAID_SHAPES: Final = {
    "end": ("([", "])"),
    "join": ("[\\", "/]"),
    "split": ("[/", "\\]"),
    "condition": ("{", "}"),
    "plain": ("[", "]"),
}


def _kind(node: Node) -> str:
    if node.is_start or node.is_end:
        return "end"
    if node.is_join:
        return "join"
    if node.fanout is Fanout.CONDITION:
        return "condition"
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
            before = graph.previous(node.name)
            leading = [each for each in before if not graph.leads_back(each, node.name)]
            split = bool(leading) and graph[leading[0]].fanout.opens_split
            indents[node.name] = (indents[leading[0]] if leading else 0) + split
    return indents


def _described(node: Node) -> str:
    marks = [f"joins {node.joins}"] if node.joins is not None else []
    marks += ["async"] if node.is_async else []
    marks += sorted(node.options)
    marks += [f"shares {', '.join(node.shared)}"] if node.shared else []
    remarks = f" ({', '.join(marks)})" if marks else ""
    over = f" for each of {node.foreach}" if node.foreach is not None else ""
    if node.num_parallel is not None:
        over = f" in parallel, {node.num_parallel} at once"
    steps = ", ".join(node.next)
    if node.condition is not None:
        steps = ", ".join(
            f"{step} if {node.condition} is {_cases(node, step)}" for step in node.next
        )
    arrow = f" -> {steps}{over}" if steps else ""
    return f"{node.name}{remarks}{arrow}"


def _label(node: Node, target: str) -> str:
    """The text beside the arrow from a step to the next one."""
    if node.condition is not None:
        return f"{node.condition} is {_cases(node, target)}"
    if node.num_parallel is not None:
        return f"num_parallel {node.num_parallel}"
    return f"foreach {node.foreach}" if node.foreach else ""


def _cases(node: Node, target: str) -> str:
    return " or ".join(repr(case) for case, step in node.cases if step == target)


def _entities(text: str) -> str:
    """Escape text for quotes in Mermaid, which has entities instead of backslashes."""
    return "".join(each if each.isalnum() or each in " '._-" else f"#{ord(each)};" for each in text)


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
