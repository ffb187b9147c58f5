"""Makes errors name the class that the user called, if its methods come from internal bases."""

from __future__ import annotations

from types import FunctionType
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

Public = TypeVar("Public", bound=type)


def with_methods_of(*bases: type) -> Callable[[Public], Public]:
    """Name the methods of internal base classes after the one public class that has them.

    Python's own errors name a method by where it was defined. Users call `Engine.run`, and should
    not read of `Starter.run()` when an argument is wrong.
    """

    def name(public: Public) -> Public:
        for base in bases:
            for member in vars(base).values():
                method = getattr(member, "fget", member)
                if isinstance(method, FunctionType):
                    method.__qualname__ = f"{public.__qualname__}.{method.__name__}"
                    method.__module__ = public.__module__  # where pickle looks for it
        return public

    return name
