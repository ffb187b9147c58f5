"""Which tasks under `@resources` may run together on this machine.

A task whose step asks for more than is free waits. Tasks that wait stand in a line, each step of a
run once, and the first of the line begins first: so a large task is not passed by small ones for
ever. A task that asks for more than there is runs while no other task under `@resources` does.

Nothing here waits.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

from asyncflow._quick_classes import NamedTuple
from asyncflow._support import log

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncflow.scheduling.facts import TaskSource

_ROUNDING: Final = 1e-6


class Amounts(NamedTuple):
    """An amount of each resource."""

    cpu: float = 0.0
    gpu: float = 0.0
    memory: float = 0.0
    """In MB."""

    def times(self, count: int) -> Amounts:
        """What so many tasks need."""
        return Amounts(*(count * each for each in self))

    def exceeds(self, other: Amounts) -> bool:
        """Whether it is more than another one in any resource."""
        return any(mine > its + _ROUNDING for mine, its in zip(self, other, strict=True))

    def __str__(self) -> str:
        parts = zip(self, ("cpu", "gpu", "MB of memory"), strict=True)
        return ", ".join(f"{amount:g} {what}" for amount, what in parts if amount) or "nothing"


def amounts_of(options: Any) -> Amounts | None:
    """What a step's `resources` option asks for; None if it asks for nothing that is counted.

    What it does not name is not counted.
    """
    given = options if isinstance(options, dict) else {}
    amounts = Amounts(*(_number(given.get(name)) for name in Amounts._fields))
    return amounts if any(amounts) else None


def _number(value: object) -> float:
    try:
        return max(0.0, float(value))  # type: ignore[arg-type]  # or it raises
    except (TypeError, ValueError):
        return 0.0


class MachineResources:
    """What the machine has, and which tasks have some of it or wait for it."""

    def __init__(self, there: Amounts, wake: Callable[[TaskSource], None]) -> None:
        """Nothing is in use; `wake` is called with a run that should be tried again."""
        self._there, self._wake = there, wake
        self._used = Amounts()
        self.holders = 0
        """How many tasks and gangs have some of it."""
        self._line: OrderedDict[tuple[int, str], TaskSource] = OrderedDict()
        self._warned: set[tuple[int, str]] = set()

    def __bool__(self) -> bool:
        """Whether tasks wait."""
        return bool(self._line)

    def may_take(self, source: TaskSource, step: str, amounts: Amounts) -> bool:
        """Whether a task of the step may begin; if not, its run is woken when its turn comes."""
        key = source.number, step
        first = next(iter(self._line), key)
        if first == key and not (self.holders and self._exceeds_what_is_free(amounts)):
            return True
        self._line[key] = source
        return False

    def _exceeds_what_is_free(self, amounts: Amounts) -> bool:
        return _sum(self._used, amounts).exceeds(self._there)

    def take(self, source: TaskSource, step: str, amounts: Amounts) -> None:
        """A task, or a gang, begins."""
        if amounts.exceeds(self._there) and (source.number, step) not in self._warned:
            self._warned.add((source.number, step))
            log.warning(
                "a step asks for more than the machine has: its tasks run alone",
                step=f"{source.pathspec}/{step}",
                asked=str(amounts),
                there=str(self._there),
            )
        used, holders = _sum(self._used, amounts), self.holders + 1
        self._used, self.holders = used, holders  # together: no signal handler runs in between
        self.leave(source, step)

    def give_back(self, amounts: Amounts) -> None:
        """A task, or a gang, has ended."""
        holders = max(0, self.holders - 1)  # a release that was broken off is repeated
        used = _sum(self._used, amounts.times(-1)) if holders else Amounts()
        self._used, self.holders = used, holders
        self._wake_first()

    def first_of(self, source: TaskSource) -> str | None:
        """The step of this run whose turn it is; None if it is another run's."""
        number, step = next(iter(self._line), (0, ""))
        return step if step and number == source.number else None

    def leave(self, source: TaskSource, step: str) -> None:
        """Leave the line: a task begins, or waits for something else now."""
        if self._line.pop((source.number, step), None) is not None:
            self._wake_first()

    def forget(self, source: TaskSource) -> None:
        """Remove a run from the line: none of its tasks may begin now."""
        for number, step in list(self._line):
            if number == source.number:
                self.leave(source, step)

    def end(self, source: TaskSource) -> None:
        """A run has ended."""
        self.forget(source)
        self._warned = {key for key in self._warned if key[0] != source.number}

    def _wake_first(self) -> None:
        if self._line:
            self._wake(next(iter(self._line.values())))

    def __repr__(self) -> str:
        return f"<MachineResources {self._used} of {self._there}, {len(self._line)} wait>"


def _sum(one: Amounts, other: Amounts) -> Amounts:
    return Amounts(*(sum(pair) for pair in zip(one, other, strict=True)))
