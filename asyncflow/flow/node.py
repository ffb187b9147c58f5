"""A step of a flow as the graph knows it, and where it goes on to."""

from __future__ import annotations

from dataclasses import field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from asyncflow._quick_classes import NamedTuple, dataclass

if TYPE_CHECKING:
    from collections.abc import Mapping

_HELD: Final = frozenset({"isolate", "limit", "resources"})

START: Final = "start"
"""The name of the first step, unless another one has `@step(start=True)`."""
END: Final = "end"
"""The name of the last step, unless another one has `@step(end=True)`."""

Case = str | int | float | bool | None
"""A value that a condition can be compared with: a constant in the source."""
Cases = tuple[tuple[Case, str], ...]
"""Each case of a condition, and the step that it leads to, in the order of the code."""


class Fanout(StrEnum):
    """How a step goes on."""

    NONE = "none"  # to one step, or as the last step to none
    BRANCH = "branch"  # to several steps at once
    FOREACH = "foreach"  # to one step, once for each item of an artifact, or node of a gang
    CONDITION = "condition"  # to one of several steps, chosen by the value of an artifact

    @property
    def opens_split(self) -> bool:
        """Whether a join must follow, since several tasks may come of one."""
        return self in {Fanout.BRANCH, Fanout.FOREACH}


class Transition(NamedTuple):
    """Where a step goes: what its `self.next(...)` says."""

    steps: tuple[str, ...]
    foreach: str | None = None
    """The artifact whose items the next step runs over."""
    condition: str | None = None
    """The artifact whose value chooses one of `cases`."""
    cases: Cases = ()
    num_parallel: str | None = None
    """How many tasks of the next step make a gang, as the source says it: `3`, `self.size`."""

    def __str__(self) -> str:
        if self.condition is not None:
            cases = ", ".join(f"{case!r}: self.{step}" for case, step in self.cases)
            return f"self.next({{{cases}}}, condition={self.condition!r})"
        over = [f"foreach={self.foreach!r}"] if self.foreach is not None else []
        if self.num_parallel is not None:
            over.append(f"num_parallel={self.num_parallel}")
        return f"self.next({', '.join([*(f'self.{step}' for step in self.steps), *over])})"


@dataclass(frozen=True, slots=True)
class Node:
    """A step within a graph.

    The `Graph` computes `fanout`, `joins`, `join` and `depth` from its structure, and ignores the
    values given.
    """

    name: str
    next: tuple[str, ...] = ()
    """The steps that follow, in the order of the code, each once."""
    fanout: Fanout = Fanout.NONE
    foreach: str | None = None
    """The artifact that a foreach runs over."""
    condition: str | None = None
    """The artifact that chooses the next step."""
    cases: Cases = ()
    """What the values of `condition` lead to."""
    num_parallel: str | None = None
    """How many tasks of the next step make a gang, as the source says it."""
    is_join: bool = False
    """Whether the step takes `inputs`."""
    is_async: bool = False
    is_start: bool = False
    """Whether the flow begins here; before the graph is checked, what `@step(start=True)` says."""
    is_end: bool = False
    """Whether the flow ends here; before the graph is checked, what `@step(end=True)` says."""
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
    """The options that decorators have set, as plain data; see `asyncflow.flow.step_options`."""
    shared: tuple[str, ...] = ()
    """The names of the shared resources that the step asks for; see `asyncflow.flow.shared`."""

    transition: Transition = field(init=False, repr=False, compare=False)
    """What the step's `self.next(...)` says."""

    def __post_init__(self) -> None:
        said = self.next, self.foreach, self.condition, self.cases, self.num_parallel
        object.__setattr__(self, "transition", Transition(*said))  # each task asks for it

    def is_retried(self, attempt: int) -> bool:
        """Whether the step's `@retry` allows another attempt if this one fails."""
        retry = self.options.get("retry")
        return isinstance(retry, dict) and attempt < retry["times"]

    @property
    def reads_arrivals(self) -> bool:
        """Whether it reads its inputs as they arrive, if it is the join of a foreach.

        A join that begins early must hold nothing that the tasks before it may need.
        """
        return "arrivals" in self.options and not self.options.keys() & _HELD

    @property
    def catches(self) -> bool:
        """Whether the step's `@catch` lets the run go on after a task's last attempt has failed."""
        return "catch" in self.options

    @property
    def is_gang(self) -> bool:
        """Whether its tasks are the nodes of gangs, which start and end together."""
        return "parallel" in self.options

    @property
    def decides(self) -> bool:
        """Whether the tasks that follow depend on what a task of the step has set."""
        given = self.foreach, self.condition, self.num_parallel
        return any(each is not None for each in given)

    def chosen(self, value: object) -> str | None:
        """The step that this value of the condition leads to; None if it is none of the cases.

        As in a dict, `1`, `1.0` and `True` are one case.
        """
        steps: dict[object, str] = {}
        steps.update(self.cases)
        try:
            return steps.get(value)
        except TypeError:  # it cannot be hashed
            return None
