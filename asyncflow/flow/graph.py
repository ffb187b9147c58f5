"""The graph of a flow: which steps it has, and which step follows which.

A `Graph` is immutable, and making one checks its structure. So every `Graph` begins with `start`,
ends with `end`, and has no cycle and no unreachable step. One join closes each split, and all
branches of the split reach it. A step that is not a join follows one step only.

`asyncflow.flow.graph_reader` reads a graph from a class, and `asyncflow.flow.graph_drawing` draws
it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from asyncflow._support.suggestions import did_you_mean
from asyncflow.errors import GraphError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

START: Final = "start"
END: Final = "end"


class Fanout(StrEnum):
    """How a step goes on."""

    NONE = "none"  # to one step, or as `end` to none
    BRANCH = "branch"  # to several steps at once
    FOREACH = "foreach"  # to one step, once for each item of an artifact


@dataclass(frozen=True, slots=True)
class Transition:
    """Where a step goes: what its `self.next(...)` says."""

    steps: tuple[str, ...]
    foreach: str | None = None
    """The artifact whose items the next step runs over."""

    def __str__(self) -> str:
        over = [f"foreach={self.foreach!r}"] if self.foreach is not None else []
        return f"self.next({', '.join([*(f'self.{step}' for step in self.steps), *over])})"


@dataclass(frozen=True, slots=True)
class Node:
    """A step within a graph.

    The `Graph` computes `fanout`, `joins`, `join` and `depth` from its structure, and ignores the
    values given.
    """

    name: str
    next: tuple[str, ...] = ()
    """The steps that follow, in the order of the code."""
    fanout: Fanout = Fanout.NONE
    foreach: str | None = None
    """The artifact that a foreach runs over."""
    is_join: bool = False
    """Whether the step takes `inputs`."""
    is_async: bool = False
    joins: str | None = None
    """For a join, the split that it closes."""
    join: str | None = None
    """For a split, the join that closes it."""
    depth: int = 0
    """How many open foreach splits the step is in."""
    line: int = 0
    """The line of the step's `def` in `file`."""
    file: str = ""
    doc: str = ""
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """The options that decorators have set, as plain data; see `asyncflow.flow.decorators`."""
    shared: tuple[str, ...] = ()
    """The names of the shared resources that the step asks for; see `asyncflow.flow.shared`."""

    def is_retried(self, attempt: int) -> bool:
        """Whether the step's `@retry` allows another attempt if this one fails."""
        retry = self.options.get("retry")
        return isinstance(retry, dict) and attempt < retry["times"]

    @property
    def catches(self) -> bool:
        """Whether the step's `@catch` lets the run go on after a task's last attempt has failed."""
        return "catch" in self.options


@dataclass(frozen=True, slots=True, init=False, repr=False)
class Graph:
    """The checked steps of a flow in topological order: each comes after those that lead to it.

    Iterating gives the nodes in that order; `graph["train"]` is one of them.
    """

    flow: str
    nodes: Mapping[str, Node] = field(hash=False)
    _previous: Mapping[str, tuple[str, ...]] = field(hash=False, compare=False)

    def __init__(self, flow: str, nodes: Iterable[Node]) -> None:
        """Check the steps, given in any order, and sort them.

        Raises:
            GraphError: The steps do not form a graph that can be run.
        """
        given = _by_name(nodes)
        _check_ends(flow, given)
        for node in given.values():
            _check_targets(node, given)
        order = _topological(given)
        _check_reached(order, given)
        previous = _previous(order, given)
        object.__setattr__(self, "flow", flow)
        object.__setattr__(self, "nodes", _scoped(order, given, previous))
        object.__setattr__(self, "_previous", previous)

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

    def previous(self, name: str) -> tuple[str, ...]:
        """The steps that lead to this one; to a join, in the order of its split's branches."""
        return self._previous[name]

    def before(self, name: str) -> set[str]:
        """All steps that lead to this one, directly or through others."""
        found: set[str] = set()
        pending = [name]
        while pending:
            new = set(self._previous[pending.pop()]) - found
            found |= new
            pending += new
        return found

    # --- as plain data ---

    def to_data(self) -> dict[str, Any]:
        """The graph as dicts, lists and scalars, as a run's first event holds it."""
        return {"flow": self.flow, "steps": [_node_data(node) for node in self]}

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Graph:
        """Make the graph from the result of `to_data`; unknown fields are ignored.

        Raises:
            GraphError: The data do not describe a graph that can be run.
        """
        try:
            return cls(data["flow"], [_node_of(step) for step in data["steps"]])
        except (KeyError, TypeError, ValueError) as error:
            message = f"these are not the data of a graph: {type(error).__name__}: {error}"
            raise GraphError(message) from error


# --- checks -----------------------------------------------------------------------------------


def _error(node: Node, message: str) -> GraphError:
    return GraphError(
        f"step {node.name!r} {message}", step=node.name, file=node.file, line=node.line
    )


def _by_name(nodes: Iterable[Node]) -> dict[str, Node]:
    given: dict[str, Node] = {}
    for node in nodes:
        if node.name in given:
            raise _error(node, f"is defined twice, first on line {given[node.name].line}")
        given[node.name] = replace(node, fanout=_fanout(node))
    return given


def _fanout(node: Node) -> Fanout:
    if node.foreach is not None:
        return Fanout.FOREACH
    return Fanout.BRANCH if len(node.next) > 1 else Fanout.NONE


def _check_ends(flow: str, nodes: Mapping[str, Node]) -> None:
    for name, role in ((START, "begins"), (END, "ends")):
        if name not in nodes:
            first = next(iter(nodes.values()), None)
            file, line = (first.file, first.line) if first else ("", 0)
            message = f"flow {flow!r} has no step {name!r}: a flow {role} with it, so add one"
            raise GraphError(message, step=name, file=file, line=line)
    if nodes[START].is_join:
        raise _error(nodes[START], "takes `inputs`, but nothing comes before it: remove them")
    if nodes[END].is_join:
        raise _error(nodes[END], "takes `inputs`, but cannot be a join: add a join step before it")
    if nodes[END].next:
        raise _error(nodes[END], "is the last one: remove its self.next(...)")


def _check_targets(node: Node, nodes: Mapping[str, Node]) -> None:
    if not node.next and node.name != END:
        raise _error(
            node, "leads nowhere: add self.next(self.NAME_OF_A_STEP) as its last statement"
        )
    for target in node.next:
        if target not in nodes:
            hint = did_you_mean(target, nodes) or "; add it, or remove it from self.next(...)"
            raise _error(node, f"leads to {target!r}, but there is no such step{hint}")
    if len(set(node.next)) != len(node.next):
        raise _error(node, "names a step twice in self.next(...): name each branch once")
    if node.foreach is not None and len(node.next) != 1:
        raise _error(node, "has a foreach over several steps: lead to one step, and branch there")


def _topological(nodes: Mapping[str, Node]) -> list[str]:
    """The names in order, from a depth-first walk that takes branches from last to first."""
    finished: list[str] = []
    seen: set[str] = set()
    for root in (START, *nodes):  # steps that are never reached may form a cycle of their own
        if root not in seen:
            _walk(root, nodes, seen, finished)
    finished.reverse()
    at = finished.index(START)
    return finished[at:] + finished[:at]


def _walk(root: str, nodes: Mapping[str, Node], seen: set[str], finished: list[str]) -> None:
    # With an explicit stack: a long flow would exceed Python's recursion limit.
    seen.add(root)
    path = {root: None}  # ordered, and a name is found in constant time
    pending = [list(nodes[root].next)]
    while pending:
        if not pending[-1]:
            pending.pop()
            finished.append(path.popitem()[0])
            continue
        target = pending[-1].pop()
        if target in path:
            names = list(path)
            cycle = " -> ".join([*names[names.index(target) :], target])
            message = f"leads back to {target!r} ({cycle}): steps cannot be repeated"
            raise _error(nodes[names[-1]], message)
        if target not in seen:
            seen.add(target)
            path[target] = None
            pending.append(list(nodes[target].next))


def _check_reached(order: Sequence[str], nodes: Mapping[str, Node]) -> None:
    reached = {START}
    for name in order:
        if name in reached:
            reached.update(nodes[name].next)
    missed = [name for name in nodes if name not in reached]
    if missed:
        also = f" (neither are {', '.join(missed[1:])})" if missed[1:] else ""
        message = f"is never reached{also}: lead to it from another step, or remove it"
        raise _error(nodes[missed[0]], message)


def _previous(order: Iterable[str], nodes: Mapping[str, Node]) -> dict[str, tuple[str, ...]]:
    leading: dict[str, list[str]] = {name: [] for name in order}
    for name in order:
        for target in nodes[name].next:
            leading[target].append(name)
    return {name: tuple(names) for name, names in leading.items()}


# --- splits and joins -------------------------------------------------------------------------

# The splits that are open at a step, outermost first, each with the branch that the step is in.
_Scope = tuple[tuple[str, str], ...]


def _scoped(
    order: Iterable[str], nodes: Mapping[str, Node], previous: Mapping[str, tuple[str, ...]]
) -> dict[str, Node]:
    """The nodes in order, after each split has been matched with its join and checked."""
    scopes: dict[str, _Scope] = {}
    done: dict[str, Node] = {}
    for name in order:
        node, leading = nodes[name], previous[name]
        closed = None
        if node.is_join:
            scopes[name], closed = _close(node, leading, nodes, scopes)
            done[closed] = replace(done[closed], join=name)
        else:
            scopes[name] = _enter(node, leading, nodes, scopes)
        depth = sum(nodes[split].fanout is Fanout.FOREACH for split, _ in scopes[name])
        done[name] = replace(node, joins=closed, join=None, depth=depth)
    return done


def _enter(
    node: Node, leading: Sequence[str], nodes: Mapping[str, Node], scopes: Mapping[str, _Scope]
) -> _Scope:
    if len(leading) > 1:
        message = (
            f"is reached from {_listed(leading)}, but is no join: give it a second argument, as "
            f"in `def {node.name}(self, inputs)`, or lead each branch to a step of its own"
        )
        raise _error(node, message)
    scope = _leaving(leading[0], node.name, nodes, scopes) if leading else ()
    if node.name == END and scope:
        message = (
            f"is reached while the split in step {scope[-1][0]!r} is still open: "
            f"before it, add a join, a step with a second argument `inputs`"
        )
        raise _error(node, message)
    return scope


def _leaving(
    name: str, target: str, nodes: Mapping[str, Node], scopes: Mapping[str, _Scope]
) -> _Scope:
    if nodes[name].fanout is Fanout.NONE:
        return scopes[name]
    return (*scopes[name], (name, target))


def _close(
    node: Node, leading: Sequence[str], nodes: Mapping[str, Node], scopes: Mapping[str, _Scope]
) -> tuple[_Scope, str]:
    arriving = {name: _leaving(name, node.name, nodes, scopes) for name in leading}
    for name, scope in arriving.items():
        if not scope:
            message = (
                f"takes `inputs`, but no split is open where step {name!r} leads to it: "
                f"remove the argument, or split the flow before"
            )
            raise _error(node, message)
        if scope[-1][0] == name:
            message = f"leads directly to the join {node.name!r}: put a step between them"
            raise _error(nodes[name], message)
    outer, (split, _) = arriving[leading[0]][:-1], arriving[leading[0]][-1]
    for name, scope in arriving.items():
        if (scope[:-1], scope[-1][0]) != (outer, split):
            message = (
                f"joins branches of different splits: step {leading[0]!r} comes from the split in "
                f"{split!r}, step {name!r} from that in {scope[-1][0]!r}: give each split a "
                f"join of its own, the inner one first"
            )
            raise _error(node, message)
    arrived = {scope[-1][1] for scope in arriving.values()}
    missing = [branch for branch in nodes[split].next if branch not in arrived]
    if missing:
        message = (
            f"splits into branches that do not meet: {_listed(missing)} "
            f"{'does' if len(missing) == 1 else 'do'} not lead to the join {node.name!r}, but "
            f"{_listed(sorted(arrived))} {'does' if len(arrived) == 1 else 'do'}: "
            f"let all of them lead to one join"
        )
        raise _error(nodes[split], message)
    return outer, split


def _listed(names: Sequence[str]) -> str:
    quoted = [repr(name) for name in names]
    return " and ".join([", ".join(quoted[:-1]), quoted[-1]] if len(quoted) > 1 else quoted)


# --- data -------------------------------------------------------------------------------------


def _node_data(node: Node) -> dict[str, Any]:
    return {
        "name": node.name,
        "next": list(node.next),
        "fanout": str(node.fanout),
        "foreach": node.foreach,
        "is_join": node.is_join,
        "is_async": node.is_async,
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
        raise TypeError("the name of a step, or of what it shares, is no text")
    return Node(
        name=step["name"],
        next=tuple(step["next"]),
        foreach=step["foreach"],
        is_join=step["is_join"],
        is_async=step["is_async"],
        line=step["line"],
        file=step["file"],
        doc=step["doc"],
        options=step["options"],
        shared=tuple(step.get("shared", ())),  # runs of earlier versions have no such
    )
