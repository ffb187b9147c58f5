"""A column of a table: its name, type, length, and its first values when they are asked for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

from asyncflow.client.previews.limits import PreviewLimits
from asyncflow.client.previews.value_text import text_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from asyncflow.client.previews.pickle_opcodes import Node

_CELL = PreviewLimits(characters=60, items=5, depth=3)


@dataclass(frozen=True, slots=True)
class Column:
    """One column, or the labels of the rows."""

    name: str
    dtype: str
    length: int
    texts: Callable[[int], list[str]]
    """The first values, so many, as texts; fewer if the others cannot be shown."""
    is_plain: bool = False
    """Whether these are labels 0, 1, 2…, which need not be shown."""

    def named(self, name: str) -> Self:
        """The same under a name."""
        return replace(self, name=name)

    @classmethod
    def of_objects(cls, objects: Sequence[Node], places: range | None = None) -> Self:
        """A column of any values: all of these, or those in some places among them."""
        at = range(len(objects)) if places is None else places
        return cls(
            "",
            "object",
            len(at),
            lambda count: [text_of(objects[place], _CELL)[0] for place in at[:count]],
        )

    @classmethod
    def unknown(cls, name: str) -> Self:
        """A column whose values are kept in a way that is not known here."""
        return cls(name, "?", 0, lambda _: [])
