"""Programs for the simulation: drawn from a seed, as graphs, and what is known of their tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from asyncflow.flow.graph import Graph
from asyncflow.flow.node import Node
from tests.durability.chaos.programs import (
    Branch,
    Chain,
    Choice,
    Each,
    Gang,
    Loop,
    Part,
    Program,
    Step,
    _first,
    _named,
    each,
)
from tests.durability.chaos.reference import Path, indexes
from tests.support.random_graphs import turns_of, with_turns

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from random import Random

Key = tuple[str, tuple[int, ...]]

TIMEOUT = 2.0  # seconds; some simulated tasks take longer
EARLY_JOINS = 0.4
"""The share of the joins of foreachs that read their inputs as they arrive."""
_WEIGHTS = (3, 3, 1, 3, 1, 1)  # of each kind of part


def random_program(random: Random) -> Program:
    """One of those that `programs` gives, drawn from a seed."""

    def step(*, split: bool = False) -> Step:
        return Step(
            is_async=random.random() < 0.4,
            failing=random.choice([0] * 10 + [1, 2]),
            parity=random.choice([None, 0, 1]),
            retries=random.choice([0, 1, 2, 2]),
            catches=not split and random.random() < 0.5,
        )

    def chain(depth: int, least: int) -> Chain:
        return tuple(part(depth) for _ in range(random.randint(least, 2)))

    def alone(_: int) -> Step:
        return step()

    def branch(depth: int) -> Branch:
        arms = tuple(chain(depth, 1) for _ in range(random.randint(2, 3)))
        return Branch(step(split=True), arms, step(split=True))

    def gang(_: int) -> Gang:
        return Gang(step(split=True), random.choice([1, 2, 3, 5]), (step(),), step(split=True))

    def foreach(depth: int) -> Each:
        width = random.choice([0, 1, 2, 3, 3, 12])
        how = random.random() < 0.4, random.random() < EARLY_JOINS
        return each(step(split=True), width, chain(depth, 1), step(split=True), *how)

    def choice(depth: int) -> Choice:
        arms = tuple(chain(depth, 0) for _ in range(random.randint(1, 3)))
        return Choice(step(split=True), arms)

    def loop(depth: int) -> Loop:
        return Loop(chain(depth, 0), step(split=True), random.randint(1, 3))

    def part(depth: int) -> Part:
        kinds = alone, branch, gang, foreach, choice, loop
        return random.choices(kinds, _WEIGHTS)[0](depth - 1) if depth else step()

    return _named(Program(step(split=True), chain(2, 1), step(split=True)))


def graph_of(program: Program, random: Random) -> Graph:
    """Its graph, with some limits drawn to it."""
    return Graph("Simulated", _Nodes(random).of_program(program))


class _Nodes:
    """Makes the nodes of a graph."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._more_options: dict[str, str] = {}
        """For some steps, an option that they have."""

    def of_program(self, program: Program) -> Iterator[Node]:
        yield self._node(program.start, _first(program.chain, "end"))
        yield from self._of_chain(program.chain, "end")
        yield self._node(program.end)

    def _of_chain(self, chain: Chain, after: str) -> Iterator[Node]:
        for number, part in enumerate(chain):
            following = _first(chain[number + 1 :], after)
            match part:
                case Step():
                    yield self._node(part, following)
                case Choice():
                    yield from self._of_choice(part, following)
                case Loop():
                    yield from self._of_loop(part, following)
                case Branch() | Each():
                    yield from self._of_split(part, following)

    def _of_choice(self, part: Choice, after: str) -> Iterator[Node]:
        firsts = [_first(arm, after) for arm in part.arms]
        cases = tuple(enumerate(firsts))
        yield self._node(part.check, *dict.fromkeys(firsts), condition="arm", cases=cases)
        for arm in part.arms:
            yield from self._of_chain(arm, after)

    def _of_loop(self, part: Loop, after: str) -> Iterator[Node]:
        name = part.check.name
        first = _first(part.body, name)
        yield from self._of_chain(part.body, name)
        cases = (True, first), (False, after)
        yield self._node(part.check, first, after, condition="more", cases=cases)

    def _of_split(self, part: Branch | Each, after: str) -> Iterator[Node]:
        arms = part.arms if isinstance(part, Branch) else (part.body,)
        over: dict[str, str] = {}
        if isinstance(part, Gang):
            over["num_parallel"] = "self.size"
            self._more_options[part.node.name] = "parallel"
        elif isinstance(part, Each):
            over["foreach"] = "items"
            if part.early:
                self._more_options[part.join.name] = "arrivals"
        yield self._node(part.split, *(_first(arm, "") for arm in arms), **over)
        for arm in arms:
            yield from self._of_chain(arm, part.join.name)
        yield self._node(part.join, after, is_join=True)

    def _node(self, step: Step, *following: str, **more: Any) -> Node:
        options = _options(step, self._random)
        if step.name in self._more_options:
            options[self._more_options[step.name]] = True
            if self._more_options[step.name] == "arrivals":
                options.pop("timeout", None)  # it would cover the wait for the inputs
        return Node(step.name, following, is_async=step.is_async, options=options, **more)


def _options(step: Step, random: Random) -> dict[str, Any]:
    """What its decorators ask for."""
    options: dict[str, Any] = {}
    if step.retries:
        waits = {"seconds": random.choice([0.0, 0.5, 60.0]), "backoff": 2.0}
        rest: dict[str, Any] = {"max_seconds": None, "jitter": 0.5, "on": []}
        options["retry"] = {"times": step.retries, **waits, **rest}
    if step.catches:
        options["catch"] = {"var": None, "print_exception": False}
    drawn = random.random()
    if drawn < 0.1:
        options["timeout"] = {"seconds": TIMEOUT}
    elif drawn < 0.2:
        options["isolate"] = True
    elif drawn < 0.3:
        options["concurrency"] = random.randint(1, 3)
    return options


class At(NamedTuple):
    """A place in a program: the task before, and the path of the task after."""

    last: Key
    path: Path = ()
    in_loop: bool = False


class Expected:
    """What is known of a program's steps and tasks without any plan."""

    def __init__(self, program: Program) -> None:
        self.steps: dict[str, Step] = {}
        self.widths: dict[str, int] = {}
        self.streams: set[str] = set()
        """The splits whose items come from a generator."""
        self.choices: dict[Key, str] = {}
        """The step that each condition chooses."""
        self._keys: dict[Any, Key] = {}
        at = At(self._task(program.start, (), ()))
        at = self._chain(program.chain, at, "end")
        self._task(program.end, at.path, (at.last,))

    def key(self, step: str, path: Sequence[int], inputs: Sequence[Key], split: Key | None) -> Key:
        """The task of a step that has these indexes, and follows these tasks.

        Args:
            step: The name of the step.
            path: The indexes of the foreachs around the task.
            inputs: The tasks before it, in the order of branches or items.
            split: The task that opened the innermost foreach.

        Raises:
            AssertionError: There is no such task.
        """
        key = self._keys.get((step, tuple(path), tuple(inputs) or split))
        assert key is not None, f"no task {step}{list(path)} follows {inputs or split}"
        return key

    def _task(
        self, step: Step, path: Path, inputs: tuple[Key, ...], split: Key | None = None
    ) -> Key:
        self.steps[step.name] = step
        seen = step.name, tuple(indexes(path)), inputs or split
        assert seen not in self._keys, f"two tasks look like {seen}"
        self._keys[seen] = step.name, path
        return step.name, path

    def _chain(self, chain: Chain, at: At, after: str) -> At:
        for number, part in enumerate(chain):
            following = _first(chain[number + 1 :], after)
            match part:
                case Step():
                    at = self._go(part, at)
                case Choice():
                    arm = part.arms[sum(indexes(at.path)) % len(part.arms)]
                    at = self._go(part.check, at)
                    self.choices[at.last] = _first(arm, following)
                    at = self._chain(arm, at, following)
                case Loop():
                    at = self._repeat(part, at, following)
                case Branch() | Each():
                    at = self._split(part, at)
        return at

    def _go(self, step: Step, at: At) -> At:
        return at._replace(last=self._task(step, at.path, (at.last,)))

    def _repeat(self, part: Loop, at: At, following: str) -> At:
        name, in_loop = part.check.name, at.in_loop
        at = at._replace(in_loop=True)
        for turn in range(1, part.turns + 1):
            at = self._go(part.check, self._chain(part.body, at, name))
            self.choices[at.last] = _first(part.body, name) if turn < part.turns else following
            if turn < part.turns:
                at = at._replace(path=with_turns(at.path, turns_of(at.path) + 1))
        return at._replace(path=at.path if in_loop else with_turns(at.path, 0), in_loop=in_loop)

    def _split(self, part: Branch | Each, at: At) -> At:
        split, path = self._go(part.split, at), at.path
        if isinstance(part, Branch):
            ends = [self._chain(arm, split, part.join.name) for arm in part.arms]
            path = with_turns(path, max(turns_of(end.path) for end in ends))
        else:
            self.widths[part.split.name] = part.width
            if part.streams:
                self.streams.add(part.split.name)
            items = [split._replace(path=(*at.path, number)) for number in range(part.width)]
            ends = [self._chain(part.body, item, part.join.name) for item in items]
        inputs = tuple(end.last for end in ends)
        return at._replace(last=self._task(part.join, path, inputs, split.last), path=path)
