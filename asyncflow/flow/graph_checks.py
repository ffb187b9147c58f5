"""Checks that steps form a graph that can be run, and puts them in order.

All code that works with a graph relies on these rules:

- One step begins the flow, one ends it, and every step is on a path from the first to the last.
- One join closes each split, and all branches of the split reach it.
- A step that is not a join may be reached from several steps if these are in the same branch: then
  conditions have chosen between them, and only one of them arrives.
- A gang is one step: it is reached by a step that says how many tasks it has, and leads to the
  join of that split.
- A cycle of steps contains a condition that can leave it, and stays within its branch.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from asyncflow._quick_classes import NamedTuple
from asyncflow._support.suggestions import did_you_mean
from asyncflow.errors import GraphError
from asyncflow.flow.node import END, START, Fanout, Node

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence


class Arranged(NamedTuple):
    """The checked steps of a flow."""

    nodes: dict[str, Node]
    """In topological order, if transitions that lead back are ignored."""
    previous: dict[str, tuple[str, ...]]
    """The steps that lead to each step, those that lead back to it last."""
    back: frozenset[tuple[str, str]]
    """The transitions that repeat steps: each leads to a step that is before it, or to itself."""
    loops: dict[str, int]
    """For each step that a condition can repeat: the number of its loop; only outermost loops
    count."""
    start: str
    end: str


def arrange(flow: str, nodes: Iterable[Node]) -> Arranged:
    """Check the steps, given in any order, and sort them.

    Raises:
        GraphError: The steps do not form a graph that can be run.
    """
    given = _by_name(nodes)
    start = _only(flow, given, START, [name for name, node in given.items() if node.is_start])
    end = _only(flow, given, END, [name for name, node in given.items() if node.is_end])
    given[start] = replace(given[start], is_start=True)
    given[end] = replace(given[end], is_end=True)
    _check_ends(given[start], given[end])
    for node in given.values():
        _check_targets(node, given)
        _check_gangs(node, given)
    _check_cycles(start, given)
    order, back = _topological(start, given)
    _check_reached(order, start, given)
    _check_left(given, end)
    returning = frozenset(back)
    previous = _previous(order, given, returning)
    done = _scoped(order, given, previous, returning)
    return Arranged(done, previous, returning, _loops(done, previous, back), start, end)


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
    if node.condition is not None:
        return Fanout.CONDITION
    if node.foreach is not None or node.num_parallel is not None:
        return Fanout.FOREACH
    return Fanout.BRANCH if len(node.next) > 1 else Fanout.NONE


# --- first and last ---------------------------------------------------------------------------


def _only(flow: str, nodes: Mapping[str, Node], role: str, marked: Sequence[str]) -> str:
    """The step that begins or ends the flow: the marked one, else the one with that name."""
    verb = "begins" if role == START else "ends"
    if not marked and role not in nodes:
        first = next(iter(nodes.values()), None)
        file, line = (first.file, first.line) if first else ("", 0)
        message = (
            f"flow {flow!r} has no step {role!r}: a flow {verb} with it, so add one, or put "
            f"@step({role}=True) on the step that it {verb} with"
        )
        raise GraphError(message, step=role, file=file, line=line)
    others = [name for name in [*marked[1:], role] if marked and name != marked[0]]
    if [name for name in others if name in nodes]:
        message = (
            f"has @step({role}=True), so the flow {verb} with it, but there is {others[0]!r} too: "
            f"a flow {verb} with one step, so rename that or remove its mark"
        )
        raise _error(nodes[marked[0]], message)
    return marked[0] if marked else role


def _check_ends(first: Node, last: Node) -> None:
    if first.is_join:
        raise _error(first, "takes `inputs`, but nothing comes before it: remove them")
    if last.is_join:
        raise _error(last, "takes `inputs`, but cannot be a join: add a join step before it")
    if last.next:
        raise _error(last, "is the last one: remove its self.next(...)")


def _check_targets(node: Node, nodes: Mapping[str, Node]) -> None:
    if not node.next and not node.is_end:
        raise _error(
            node, "leads nowhere: add self.next(self.NAME_OF_A_STEP) as its last statement"
        )
    for target in node.next:
        if target not in nodes:
            hint = did_you_mean(target, nodes) or "; add it, or remove it from self.next(...)"
            raise _error(node, f"leads to {target!r}, but there is no such step{hint}")
    if len(set(node.next)) != len(node.next):
        raise _error(node, "names a step twice in self.next(...): name each branch once")
    if node.num_parallel is not None and (len(node.next) != 1 or node.foreach is not None):
        raise _error(node, "has `num_parallel`, but leads to something else than one step")
    if node.foreach is not None and len(node.next) != 1:
        raise _error(node, "has a foreach over several steps: lead to one step, and branch there")
    if node.condition is not None and {step for _, step in node.cases} != set(node.next):
        raise _error(node, "has a condition whose cases are not the steps that follow it")


def _check_gangs(node: Node, nodes: Mapping[str, Node]) -> None:
    for target in node.next:
        if node.num_parallel is not None and not nodes[target].is_gang:
            message = (
                f"leads to {target!r} with `num_parallel`, but that is no step of a gang: put "
                f"@parallel on it"
            )
            raise _error(node, message)
        if node.num_parallel is None and nodes[target].is_gang:
            message = (
                f"leads to {target!r}, which has @parallel: say how many tasks its gang has, as "
                f"in self.next(self.{target}, num_parallel=3)"
            )
            raise _error(node, message)
    if node.is_gang:
        if node.is_start:
            raise _error(node, "has @parallel, but a gang cannot begin a flow: add a step before")
        if not nodes[node.next[0]].is_join if len(node.next) == 1 else True:
            following = f", and {node.next[0]!r} is none" if len(node.next) == 1 else ""
            message = (
                f"has @parallel, so a join follows it{following}: lead to one step that takes "
                f"`inputs`"
            )
            raise _error(node, message)


# --- order ------------------------------------------------------------------------------------


def _check_cycles(start: str, nodes: Mapping[str, Node]) -> None:
    """Refuse a cycle that no condition can leave."""
    unconditional = {
        name: replace(node, next=()) if node.fanout is Fanout.CONDITION else node
        for name, node in nodes.items()
    }
    walk = _Walk(unconditional)
    walk.visit(start)
    for name, target in walk.back:
        cycle = walk.cycles[name, target]
        message = (
            f"leads back to {target!r} ({' -> '.join([*cycle, target])}): steps are repeated only "
            f"where a condition can end that, as in "
            f'self.next({{"again": self.{target}, "done": self.NEXT}}, condition="NAME")'
        )
        raise _error(nodes[name], message)


def _topological(start: str, nodes: Mapping[str, Node]) -> tuple[list[str], list[tuple[str, str]]]:
    """The names in order, and the transitions that lead back."""
    walk = _Walk(nodes)
    walk.visit(start)
    order = walk.finished[::-1]
    at = order.index(start)
    return order[at:] + order[:at], walk.back


class _Walk:
    """A depth-first walk over all steps, which takes branches from last to first."""

    def __init__(self, nodes: Mapping[str, Node]) -> None:
        self._nodes = nodes
        self._seen: set[str] = set()
        self.finished: list[str] = []
        """The steps, each after the steps to which it leads."""
        self.back: list[tuple[str, str]] = []
        """The transitions to a step that the walk had entered and not left."""
        self.cycles: dict[tuple[str, str], list[str]] = {}

    def visit(self, start: str) -> None:
        """Walk from `start`, then from each step that was not reached."""
        for root in (start, *self._nodes):
            if root not in self._seen:
                self._descend(root)

    def _descend(self, root: str) -> None:
        # With an explicit stack: a long flow would exceed Python's recursion limit.
        self._seen.add(root)
        path = {root: None}  # ordered, and a name is found in constant time
        pending = [list(self._nodes[root].next)]
        while pending:
            if not pending[-1]:
                pending.pop()
                self.finished.append(path.popitem()[0])
                continue
            target = pending[-1].pop()
            if target in path:
                names = list(path)
                self.back.append((names[-1], target))
                self.cycles[names[-1], target] = names[names.index(target) :]
            elif target not in self._seen:
                self._seen.add(target)
                path[target] = None
                pending.append(list(self._nodes[target].next))


def _check_reached(order: Sequence[str], start: str, nodes: Mapping[str, Node]) -> None:
    reached = {start}
    for name in order:
        if name in reached:
            reached.update(nodes[name].next)
    missed = [name for name in nodes if name not in reached]
    if missed:
        also = f" (neither are {', '.join(missed[1:])})" if missed[1:] else ""
        message = f"is never reached{also}: lead to it from another step, or remove it"
        raise _error(nodes[missed[0]], message)


def _check_left(nodes: Mapping[str, Node], end: str) -> None:
    """Refuse a cycle whose conditions have no case that leaves it."""
    leading: dict[str, list[str]] = {name: [] for name in nodes}
    for node in nodes.values():
        for target in node.next:
            leading[target].append(node.name)
    ending = _reached_from(end, leading)
    caught = next((node for node in nodes.values() if node.name not in ending), None)
    if caught is not None:
        message = (
            f"never leads to the last step {end!r}: each way from it comes back, so add a case "
            f"that goes on"
        )
        raise _error(caught, message)


def _previous(
    order: Iterable[str], nodes: Mapping[str, Node], back: Collection[tuple[str, str]]
) -> dict[str, tuple[str, ...]]:
    leading: dict[str, list[str]] = {name: [] for name in order}
    returning: dict[str, list[str]] = {name: [] for name in leading}
    for name in leading:
        for target in nodes[name].next:
            (returning if (name, target) in back else leading)[target].append(name)
    return {name: (*names, *returning[name]) for name, names in leading.items()}


def _loops(
    nodes: Mapping[str, Node],
    previous: Mapping[str, tuple[str, ...]],
    back: Iterable[tuple[str, str]],
) -> dict[str, int]:
    """The loop of each step in one: two steps are in the same loop if each leads to the other."""
    following = {name: node.next for name, node in nodes.items()}
    loops: dict[str, int] = {}
    for number, (name, target) in enumerate(back):
        if name not in loops:
            both = _reached_from(target, following) & _reached_from(name, previous)
            loops.update(dict.fromkeys(both, number))
    return loops


def _reached_from(name: str, following: Mapping[str, Iterable[str]]) -> set[str]:
    found, pending = {name}, [name]
    while pending:
        new = [each for each in following[pending.pop()] if each not in found]
        found.update(new)
        pending += new
    return found


# --- splits and joins -------------------------------------------------------------------------

# The splits that are open at a step, outermost first, each with the branch that the step is in.
_Scope = tuple[tuple[str, str], ...]


def _scoped(
    order: Iterable[str],
    nodes: Mapping[str, Node],
    previous: Mapping[str, tuple[str, ...]],
    back: Collection[tuple[str, str]],
) -> dict[str, Node]:
    """The nodes in order, after each split has been matched with its join and checked."""
    scopes: dict[str, _Scope] = {}
    done: dict[str, Node] = {}
    for name in order:
        node = nodes[name]
        leading = [each for each in previous[name] if (each, name) not in back]
        closed = None
        if node.is_join:
            scopes[name], closed = _close(node, leading, nodes, scopes)
            if done[closed].join is not None:
                message = (
                    f"splits into branches that may meet in {done[closed].join!r} or in {name!r}: "
                    f"let all of them lead to one join"
                )
                raise _error(nodes[closed], message)
            done[closed] = replace(done[closed], join=name)
        else:
            scopes[name] = _enter(node, leading, nodes, scopes)
        depth = sum(nodes[split].fanout is Fanout.FOREACH for split, _ in scopes[name])
        done[name] = replace(node, joins=closed, join=None, depth=depth)
    for name, target in back:
        _check_back(nodes[name], nodes[target], nodes, scopes)
    return done


def _check_back(
    node: Node, target: Node, nodes: Mapping[str, Node], scopes: Mapping[str, _Scope]
) -> None:
    if target.is_join or _leaving(node.name, target.name, nodes, scopes) != scopes[target.name]:
        message = (
            f"leads back to {target.name!r} across a split or a join: let a step repeat only "
            f"steps of its own branch"
        )
        raise _error(node, message)


def _enter(
    node: Node, leading: Sequence[str], nodes: Mapping[str, Node], scopes: Mapping[str, _Scope]
) -> _Scope:
    if not leading:
        return ()
    arriving = [_leaving(name, node.name, nodes, scopes) for name in leading]
    scope = arriving[0]
    if any(each != scope for each in arriving):
        message = (
            f"is reached from {_listed(leading)}, but is not a join: give it a second argument, as "
            f"in `def {node.name}(self, inputs)`, or lead each branch to a step of its own"
        )
        raise _error(node, message)
    if node.is_end and scope:
        message = (
            f"is reached while the split in step {scope[-1][0]!r} is still open: "
            f"before it, add a join, a step with a second argument `inputs`"
        )
        raise _error(node, message)
    return scope


def _leaving(
    name: str, target: str, nodes: Mapping[str, Node], scopes: Mapping[str, _Scope]
) -> _Scope:
    if not nodes[name].fanout.opens_split:
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
