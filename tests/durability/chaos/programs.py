"""Random flows: what they do as plain data, and their source as a user would have written it.

A program is a chain of parts between `start` and `end`: steps, branches, foreachs, choices and
loops, nested. What each step does beside handing on is drawn as well: artifacts of each size,
values changed in place, attempts that fail, retries, catches, `def` or `async def`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Iterator

SIZES = (0, 0, 0, 700, 5_000, 300_000)  # nothing, and each place where a value can lie


@dataclass(frozen=True)
class Step:
    """One step, and what it does."""

    is_async: bool = False
    size: int = 0
    """Of a value that it makes; 0 for none."""
    failing: int = 0
    """How many of its first attempts fail."""
    parity: int | None = None
    """Only the tasks fail whose foreach index is even (0) or odd (1)."""
    retries: int = 0
    catches: bool = False
    name: str = ""
    mended: bool = False
    """Whether it failed before its program was mended; it does the same else."""

    @property
    def is_touched(self) -> bool:
        """Whether it marks the task as broken before it may fail, and takes the mark back."""
        return bool(self.failing) or self.mended

    def fails_at(self, index: int | None, attempt: int) -> bool:
        """Whether an attempt of the task with this foreach index fails."""
        meant = self.parity is None or (index is not None and index % 2 == self.parity)
        return meant and attempt < self.failing


@dataclass(frozen=True)
class Branch:
    """Several chains side by side."""

    split: Step
    arms: tuple[Chain, ...]
    join: Step


@dataclass(frozen=True)
class Each:
    """A chain for each of several items."""

    split: Step
    width: int
    body: Chain
    join: Step
    streams: bool = False
    """Whether a generator yields the items; an attempt of the split that fails has yielded half."""
    early: bool = False
    """Whether the join, which is async, reads its inputs as they arrive."""

    @property
    def half(self) -> int:
        """How many items a generator has yielded when it fails."""
        return self.width // 2


@dataclass(frozen=True)
class Gang(Each):
    """One step, so many tasks of which start and end together.

    Its node does not catch: whether the other nodes end before they are stopped is open.
    """

    @property
    def node(self) -> Step:
        """The step of its tasks."""
        (node,) = self.body
        assert isinstance(node, Step)
        return node


@dataclass(frozen=True)
class Choice:
    """One of several chains, which may be empty: by the sum of the foreach indexes."""

    check: Step
    arms: tuple[Chain, ...]


@dataclass(frozen=True)
class Loop:
    """A chain that the condition behind it repeats until it was gone through so many times."""

    body: Chain
    check: Step
    turns: int


Part = Step | Branch | Each | Choice | Loop
Chain = tuple[Part, ...]

STEPS = st.builds(
    Step,
    is_async=st.booleans(),
    size=st.sampled_from(SIZES),
    failing=st.sampled_from([0, 0, 0, 0, 0, 0, 1, 2]),
    parity=st.sampled_from([None, 0, 1]),
    retries=st.sampled_from([0, 1, 2, 2]),
    catches=st.booleans(),
)
# Nothing is left to fan out over, or to read on, where a split or a join is stood in for.
SPLITS = STEPS.map(lambda step: replace(step, catches=False))


def each(*parts: Any) -> Each:
    """A foreach; what reads its inputs as they arrive is async."""
    made = Each(*parts)
    return replace(made, join=replace(made.join, is_async=True)) if made.early else made


def chains(depth: int, least: int, narrowest: int = 0) -> st.SearchStrategy[Chain]:
    """Chains of up to two parts, nested so deep; a foreach has so many items at least."""
    part: st.SearchStrategy[Part] = STEPS
    if depth:
        inner = chains(depth - 1, 1, narrowest)
        arms = st.lists(inner, min_size=2, max_size=3).map(tuple)
        choices = st.lists(chains(depth - 1, 0, narrowest), min_size=1, max_size=3).map(tuple)
        # A join of no inputs would not know how many turns there have been.
        body = chains(depth - 1, 0, 1)
        part = st.one_of(
            STEPS,
            st.builds(Branch, SPLITS, arms, SPLITS),
            st.builds(
                each, SPLITS, st.integers(narrowest, 4), inner, SPLITS, st.booleans(), st.booleans()
            ),
            st.builds(Gang, SPLITS, st.integers(1, 3), st.tuples(SPLITS), SPLITS),
            st.builds(Choice, SPLITS, choices),
            st.builds(Loop, body, SPLITS, st.integers(1, 3)),
        )
    return st.lists(part, min_size=least, max_size=2).map(tuple)


@dataclass(frozen=True)
class Program:
    """A flow."""

    start: Step
    chain: Chain
    end: Step

    def mended(self) -> Program:
        """The same where no task fails for good."""
        return _map(
            self,
            lambda step: step if _ends_well(step) else replace(step, failing=0, mended=True),
        )


def _ends_well(step: Step) -> bool:
    return step.catches or step.failing <= step.retries


def programs(depth: int = 2) -> st.SearchStrategy[Program]:
    """Flows that are nested so deep at the most."""
    return st.builds(Program, SPLITS, chains(depth, 0), SPLITS).map(_named)


def _named(program: Program) -> Program:
    numbers = iter(range(1, 10_000))
    program = _map(program, lambda step: replace(step, name=f"s{next(numbers)}"))
    start, end = replace(program.start, name="start"), replace(program.end, name="end")
    return Program(start, program.chain, end)


def _map(program: Program, change) -> Program:
    def of_part(part):
        match part:
            case Step():
                return change(part)
            case Branch():
                arms = tuple(map(of_chain, part.arms))
                return Branch(change(part.split), arms, change(part.join))
            case Each():
                parts = change(part.split), of_chain(part.body), change(part.join)
                return replace(part, split=parts[0], body=parts[1], join=parts[2])
            case Choice():
                return Choice(change(part.check), tuple(map(of_chain, part.arms)))
            case Loop():
                return Loop(of_chain(part.body), change(part.check), part.turns)

    def of_chain(chain):
        return tuple(map(of_part, chain))

    return Program(change(program.start), of_chain(program.chain), change(program.end))


# --- source ---------------------------------------------------------------------------------------

_HEAD = '''"""A random flow."""

from asyncflow import FlowSpec, catch, current, parallel, retry, step


class Random(FlowSpec):
'''


def source(program: Program) -> str:
    """The flow as a user would have written it."""
    first = _first(program.chain, "end")
    start = _method(program.start, f"self.next(self.{first})", ["self.common = ('c', 1)"])
    return "\n".join([_HEAD, start, *_of_chain(program.chain, "end"), _method(program.end)])


def _of_chain(chain: Chain, after: str) -> Iterator[str]:
    for number, part in enumerate(chain):
        following = _first(chain[number + 1 :], after)
        if isinstance(part, Step):
            yield _method(part, f"self.next(self.{following})")
            continue
        if isinstance(part, Choice):
            yield from _of_choice(part, following)
            continue
        if isinstance(part, Loop):
            yield from _of_loop(part, following)
            continue
        if isinstance(part, Branch):
            arms = part.arms
            targets = ", ".join(f"self.{_first(arm, part.join.name)}" for arm in arms)
            yield _method(part.split, f"self.next({targets})")
        elif isinstance(part, Gang):
            arms = ()
            node = part.node
            yield _method(part.split, f"self.next(self.{node.name}, num_parallel={part.width})")
            yield _method(node, f"self.next(self.{part.join.name})", is_node=True)
        else:
            arms = (part.body,)
            yield _split_of(part)
        for arm in arms:
            yield from _of_chain(arm, part.join.name)
        is_early = isinstance(part, Each) and part.early
        join = "early" if is_early else "all"
        yield _method(part.join, f"self.next(self.{following})", joins=join)


def _split_of(part: Each) -> str:
    items = f"items_{part.split.name}"
    target = _first(part.body, part.join.name)
    made = [f"self.{items} = [f'{part.split.name}-{{n}}' for n in range({part.width})]"]
    if part.streams:
        made = [
            f"{'async ' if part.split.is_async else ''}def items():",
            f"    for n in range({part.width} + 1):",
            f"        if n == {part.half} and {_fails(part.split)}:",
            f'            raise ValueError("{part.split.name}")',
            f"        if n < {part.width}:",
            f"            yield f'{part.split.name}-{{n}}'",
            f"self.{items} = items()",
        ]
    following = f'self.next(self.{target}, foreach="{items}")'
    return _method(part.split, following, made, fails_late=part.streams)


def _of_choice(part: Choice, after: str) -> Iterator[str]:
    arm = f"arm_{part.check.name}"
    cases = ", ".join(
        f"{number}: self.{_first(chain, after)}" for number, chain in enumerate(part.arms)
    )
    made = f"self.{arm} = sum(path) % {len(part.arms)}"
    yield _method(part.check, f'self.next({{{cases}}}, condition="{arm}")', [made])
    for chain in part.arms:
        yield from _of_chain(chain, after)


def _of_loop(part: Loop, after: str) -> Iterator[str]:
    name = part.check.name
    yield from _of_chain(part.body, name)
    cases = f"True: self.{_first(part.body, name)}, False: self.{after}"
    made = [
        f'self.turns_{name} = getattr(self, "turns_{name}", 0) + 1',
        f"self.more_{name} = self.turns_{name} < {part.turns}",
        f"self.turns_{name} *= self.more_{name}",
    ]
    yield _method(part.check, f'self.next({{{cases}}}, condition="more_{name}")', made)


def _first(chain: Chain, after: str) -> str:
    """The name of the step that a chain begins with; `after` if there is none in it."""
    if not chain:
        return after
    match chain[0]:
        case Step(name=name):
            return name
        case Choice(check=check):
            return check.name
        case Loop(body=body, check=check):
            return _first(body, check.name)
        case Branch(split=split) | Each(split=split):
            return split.name


def _method(
    step: Step,
    following: str = "",
    makes=(),
    *,
    joins: str = "",
    is_node: bool = False,
    fails_late: bool = False,
) -> str:
    decorators = ["@parallel"] if is_node else []
    if step.catches:
        decorators.append(f'@catch(var="failure_{step.name}", print_exception=False)')
    if step.retries:
        decorators.append(f"@retry(times={step.retries}, seconds=0)")
    arguments = "self, inputs" if joins else "self"
    body = ["async for _ in inputs:", "    pass"] if joins == "early" else []
    body += ["path = [index for index, _, _ in self.foreach_stack() or ()]"]
    if step.is_touched:
        body += [
            "self.broken = True",
            *(
                []
                if fails_late
                else [f"if {_fails(step)}:", f'    raise ValueError("{step.name}")']
            ),
            "del self.broken",
        ]
    if joins:
        body += [
            "self.trail = [task.trail for task in inputs]",
            'if any(hasattr(task, "common") for task in inputs):',
            '    self.merge_artifacts(inputs, include=["common"])',
            'turns = {name for task in inputs for name in dir(task) if name[:6] == "turns_"}',
            "if turns:",
            "    self.merge_artifacts(inputs, include=turns)",
        ]
    elif step.name == "start":
        body += ["self.trail = []"]
    body += [f'self.trail.append("{step.name}")', f'self.own = "{step.name}", path']
    body += ["if path:", "    self.item = self.input"]
    if step.size:
        body.append(f"self.load = bytes([sum(path)]) * {step.size}")
    body += [*makes, following] if following else makes
    define = f"{'async ' if step.is_async else ''}def {step.name}({arguments}):"
    lines = [*decorators, "@step", define, *(f"    {line}" for line in body)]
    return "".join(f"    {line}\n" for line in lines)


def _fails(step: Step) -> str:
    """Whether the attempt of the step is to fail, in its source."""
    fails = f"current.attempt < {step.failing}"
    if step.parity is None:
        return fails
    return f"{fails} and self.index is not None and self.index % 2 == {step.parity}"
