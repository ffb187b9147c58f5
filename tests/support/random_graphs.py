"""Random graphs, and what a run of them should do, worked out serially."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from asyncflow.flow.graph import Graph
from asyncflow.flow.node import Node
from asyncflow.values import Outcome

Key = tuple[str, tuple[int, ...]]
PLAIN = Outcome()


@dataclass
class Shape:
    """A piece of a flow between two steps: a chain of parts."""

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


@dataclass
class Gang:
    """A step whose tasks start together."""

    width: int


@dataclass
class Choice:
    """One of several shapes, which may be empty."""

    arms: list[Shape]


@dataclass
class Loop:
    """A shape that a condition behind it repeats."""

    turns: int
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
        st.builds(Gang, st.integers(1, 3)),
        st.builds(Choice, st.lists(inner, min_size=1, max_size=3)),
        st.builds(Loop, st.integers(1, 3), inner),
    )
    return st.builds(Shape, st.lists(part, max_size=3))


class Built:
    """The graph of a shape, and every task that a run of it has.

    `tasks` are the sorted keys of all tasks; `inputs` has the keys of the tasks that each follows,
    and `outcomes` how each goes on.
    """

    def __init__(self, shape: Shape) -> None:
        self.nodes: list[Node] = []
        self._count = 0
        first, walk = self._chain(shape, "end")
        self.nodes.append(Node("start", (first,)))
        self.nodes.append(Node("end"))
        self.graph = Graph("Random", self.nodes)
        self.inputs: dict[Key, list[Key]] = {}
        self.outcomes: dict[Key, Outcome] = {}
        last, path = walk(self._task("start", (), []), (), False)
        self._task("end", path, [last])
        self.tasks = sorted(self.inputs)

    # Each part is built from the last step to the first, and gives the name of its first step and
    # a function. Called with the key of the task before, the path of the first task, and whether a
    # loop is around it, that walks through the tasks of the part, and returns the key of the last
    # one and the path of the task after.

    def _chain(self, shape: Shape, after: str):
        walks = []
        for part in reversed(shape.parts):
            after, walk = self._part(part, after)
            walks.append(walk)

        def walk_all(before, path, in_loop):
            for walk in reversed(walks):
                before, path = walk(before, path, in_loop)
            return before, path

        return after, walk_all

    def _part(self, part, after: str):
        match part:
            case Each():
                return self._each(part, after)
            case Gang():
                return self._gang(part, after)
            case Branch():
                return self._branch(part, after)
            case Choice():
                return self._choice(part, after)
            case Loop():
                return self._loop(part, after)
            case _:
                name = self._named("step", (after,))
                return name, lambda before, path, _: (self._task(name, path, [before]), path)

    def _each(self, part: Each, after: str):
        join = self._named("join", (after,), is_join=True)
        first, walk_body = self._chain(Shape(["step", *part.body.parts]), join)
        split = self._named("split", (first,), foreach="items")

        def walk(before, path, in_loop):
            key = self._task(split, path, [before], Outcome(fanout=part.width))
            ends = [walk_body(key, (*path, index), in_loop)[0] for index in range(part.width)]
            return self._task(join, path, ends), path

        return split, walk

    def _gang(self, part: Gang, after: str):
        join = self._named("join", (after,), is_join=True)
        node = self._named("node", (join,), options={"parallel": True})
        split = self._named("split", (node,), num_parallel="self.size")

        def walk(before, path, in_loop):
            key = self._task(split, path, [before], Outcome(fanout=part.width))
            nodes = [self._task(node, (*path, index), [key]) for index in range(part.width)]
            return self._task(join, path, nodes), path

        return split, walk

    def _branch(self, part: Branch, after: str):
        join = self._named("join", (after,), is_join=True)
        arms = [self._chain(Shape(["step", *arm.parts]), join) for arm in part.arms]
        split = self._named("split", tuple(first for first, _ in arms))

        def walk(before, path, in_loop):
            key = self._task(split, path, [before])
            ends = [walk_arm(key, path, in_loop) for _, walk_arm in arms]
            path = with_turns(path, max(turns_of(at) for _, at in ends))
            return self._task(join, path, [end for end, _ in ends]), path

        return split, walk

    def _choice(self, part: Choice, after: str):
        arms = [self._chain(arm, after) for arm in part.arms]
        steps = tuple(dict.fromkeys(first for first, _ in arms))
        cases = tuple((case, first) for case, (first, _) in enumerate(arms))
        name = self._named("choice", steps, condition="kind", cases=cases)

        def walk(before, path, in_loop):
            chosen, walk_arm = arms[sum(map(abs, path)) % len(arms)]
            key = self._task(name, path, [before], Outcome(choice=chosen))
            return walk_arm(key, path, in_loop)

        return name, walk

    def _loop(self, part: Loop, after: str):
        self._count += 1
        check = f"check{self._count}"
        first, walk_body = self._chain(part.body, check)
        cases = ((1, first), (0, after))
        self.nodes.append(Node(check, (first, after), condition="more", cases=cases))

        def walk(before, path, in_loop):
            for turn in range(1, part.turns + 1):
                before, path = walk_body(before, path, True)
                is_last = turn == part.turns
                before = self._task(
                    check, path, [before], Outcome(choice=after if is_last else first)
                )
                if not is_last:
                    path = with_turns(path, turns_of(path) + 1)
            return before, path if in_loop else with_turns(path, 0)

        return first, walk

    def _named(self, kind: str, following: tuple[str, ...], **attributes: Any) -> str:
        self._count += 1
        name = f"{kind}{self._count}"
        self.nodes.append(Node(name, following, **attributes))
        return name

    def _task(self, step: str, path, before: list[Key], outcome: Outcome = PLAIN) -> Key:
        key = step, path
        assert key not in self.inputs, f"{key} is there twice"
        self.inputs[key], self.outcomes[key] = before, outcome
        return key


def turns_of(path) -> int:
    """How often the innermost level of a path was repeated."""
    return -path[-1] if path and path[-1] < 0 else 0


def with_turns(path, turns: int):
    """The path with another number of repetitions."""
    path = path[:-1] if turns_of(path) else path
    return (*path, -turns) if turns else path
