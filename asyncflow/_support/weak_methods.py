"""Methods that can be called, and that do not keep their object alive.

The parts of a run call back the run that owns them. If they referred to it, each run that has ended
would be a circle of hundreds of objects. Only the garbage collector frees those: many runs at once,
while the event loop waits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar
from weakref import ref

if TYPE_CHECKING:
    from collections.abc import Callable

Owner = TypeVar("Owner")
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def weakly(
    owner: Owner, method: Callable[Concatenate[Owner, Arguments], Result], *, gone: Result
) -> Callable[Arguments, Result]:
    """A method of an object, without a reference to it; once that is gone, it returns `gone`."""
    found = ref(owner)

    def call(*values: Arguments.args, **named: Arguments.kwargs) -> Result:
        own = found()
        return gone if own is None else method(own, *values, **named)

    return call
