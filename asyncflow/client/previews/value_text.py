"""Writes the tree of a pickle as text, as Python would show the value: up to limits.

Of what is no plain value, the class and what it is made of are shown: `<train.Model {'depth': 3}>`.
Containers that contain themselves end at the limits as well.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final

from asyncflow.client.previews.pickle_opcodes import (
    Buffer,
    Made,
    Mapped,
    Named,
    Node,
    PartOfText,
    Several,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from asyncflow.client.previews.limits import PreviewLimits

_SHARE: Final = 4  # of the room is for one text in a container, so that the others show too
_MOST_ARGUMENTS: Final = 200  # of a call that are looked at
_MOST_ARGUMENTS_OF_CALL: Final = 3  # of `timedelta`, `range` and their like
_MOST_BITS: Final = 2_000  # of a number that is written out
_ENCLOSED: Final = {"list": "[]", "tuple": "()", "set": "{}", "frozenset": ("frozenset({", "})")}
_PLAIN_NAMES: Final = ("builtins.", "__main__.")


def text_of(node: Node, limits: PreviewLimits) -> tuple[str, bool]:
    """The text of a value, and whether something of it was left out."""
    writer = _Writer(limits)
    try:
        writer.write(node, 0)
    except _FullError:
        writer.is_cut = True
        writer.parts.append("…")
    return "".join(writer.parts), writer.is_cut


def length_of(node: Node) -> int | None:
    """The length of a container or text."""
    match node:
        case str() | bytes() | bytearray():
            return len(node)
        case Several():
            return len(node.items)
        case Mapped():
            return len(node.pairs)
        case PartOfText():
            return node.length
        case Made():
            return len(node.items) or len(node.pairs) or None
    return None


def kind_name(node: Node) -> str:
    """The type of a value as text; empty if the tree does not say it."""
    match node:
        case Several():
            return node.kind
        case Mapped():
            return "dict"
        case Made(function=Named() as named):
            return _shown_name(named)
        case PartOfText():
            return type(node.text).__name__
        case None | bool() | int() | float() | str() | bytes() | bytearray():
            return type(node).__name__
    return ""


def _shown_name(named: Named) -> str:
    full = named.full
    for prefix in _PLAIN_NAMES:
        full = full.removeprefix(prefix)
    return full.removeprefix(".")[:200]


class _FullError(Exception):
    """There is no room for more."""


class _Writer:
    def __init__(self, limits: PreviewLimits) -> None:
        self._limits = limits
        self._room = limits.characters
        self.parts: list[str] = []
        self.is_cut = False

    def put(self, text: str) -> None:
        if len(text) > self._room:
            self.parts.append(text[: self._room])
            raise _FullError
        self._room -= len(text)
        self.parts.append(text)

    def write(self, node: Node, depth: int) -> None:
        match node:
            case None | bool() | float():
                self.put(repr(node))
            case int():
                big = node.bit_length() > _MOST_BITS
                self.put(f"<int of {node.bit_length()} bits>" if big else repr(node))
            case str() | bytes() | bytearray():
                self._write_flat(node, depth)
            case PartOfText():
                self._write_flat(node.text, depth, is_whole=False)
            case Buffer():
                self.put(f"<{node.data.size} bytes>")
            case Named():
                self.put(f"<{_shown_name(node)}>")
            case _ if depth >= self._limits.depth:
                self._leave_out()
            case _:
                self._write_nested(node, depth)

    def _leave_out(self) -> None:
        self.is_cut = True
        self.put("…")

    def _write_nested(self, node: Node, depth: int) -> None:
        match node:
            case Several():
                self._write_several(node, depth)
            case Mapped():
                self._write_pairs("{", node.pairs, "}", depth)
            case Made():
                self._write_made(node, depth)
            case _:  # nothing else is in a tree
                self._leave_out()

    def _write_flat(
        self, value: str | bytes | bytearray, depth: int, *, is_whole: bool = True
    ) -> None:
        room = self._limits.characters // _SHARE if depth else self._room
        shown = value[: min(room, self._room) + 1]
        self.put(repr(bytes(shown) if isinstance(shown, bytearray) else shown))
        if len(shown) < len(value) or not is_whole:
            self._leave_out()

    def _write_several(self, node: Several, depth: int) -> None:
        if not node.items and node.kind in {"set", "frozenset"}:
            self.put(f"{node.kind}()")
            return
        opening, closing = _ENCLOSED.get(node.kind, f"<>{node.kind}")[:2]
        if node.kind == "tuple" and len(node.items) == 1:
            closing = ",)"
        self.put(opening)
        self._write_items(node.items, depth)
        self.put(closing)

    def _write_items(self, items: Iterable[Node], depth: int) -> None:
        for number, item in enumerate(items):
            if number:
                self.put(", ")
            if number == self._limits.items:
                self._leave_out()
                return
            self.write(item, depth + 1)

    def _write_pairs(
        self, opening: str, pairs: Iterable[tuple[Node, Node]], closing: str, depth: int
    ) -> None:
        self.put(opening)
        for number, (key, value) in enumerate(pairs):
            if number:
                self.put(", ")
            if number == self._limits.items:
                self._leave_out()
                break
            self.write(key, depth + 1)
            self.put(": ")
            self.write(value, depth + 1)
        self.put(closing)

    def _write_made(self, node: Made, depth: int) -> None:
        known = _KNOWN.get(node.function.full) if isinstance(node.function, Named) else None
        if known is not None:
            text = known(node)
            if text is not None:
                self.put(text)
                return
        self.put("<")
        if isinstance(node.function, Named):
            self.put(_shown_name(node.function))
        else:
            self.write(node.function, depth + 1)
        given = node.arguments[:_MOST_ARGUMENTS]  # the same call may be shown a thousand times
        shown = [each for each in given if not _is_empty(each)]
        if shown:
            self.put("(")
            self._write_items(shown, depth)
            self.put(")")
        if len(given) < len(node.arguments):
            self._leave_out()
        if node.items:
            self.put(" [")
            self._write_items(node.items, depth)
            self.put("]")
        if node.pairs:
            self._write_pairs(" {", node.pairs, "}", depth)
        if node.state is not None and not _is_empty(node.state):
            self.put(" ")
            self.write(node.state, depth + 1)
        self.put(">")


def _is_empty(node: Node) -> bool:
    return (isinstance(node, Several) and not node.items) or (
        isinstance(node, Mapped) and not node.pairs
    )


# --- what is known of the standard library's classes --------------------------------------------


def _datetime(node: Made) -> str | None:
    packed = _packed(node, 10)
    if packed is None:
        return None
    year, month, day, hour, minute, second = struct.unpack(">H5B", packed[:7])
    micro = int.from_bytes(packed[7:10], "big")
    fraction = f".{micro:06}" if micro else ""
    zone = " with a time zone" if len(node.arguments) > 1 else ""
    text = f"{year:04}-{month & 0x7F:02}-{day:02} {hour:02}:{minute:02}:{second:02}{fraction}"
    return f"datetime({text}{zone})"


def _date(node: Made) -> str | None:
    packed = _packed(node, 4)
    if packed is None:
        return None
    year, month, day = struct.unpack(">HBB", packed)
    return f"date({year:04}-{month:02}-{day:02})"


def _packed(node: Made, size: int) -> bytes | None:
    first = node.arguments[0] if node.arguments else None
    return first if isinstance(first, bytes) and len(first) == size else None


def _as_call(name: str, kind: type) -> Callable[[Made], str | None]:
    """Shown like a call, if each argument is of this kind and short."""

    def show(node: Made) -> str | None:
        given: list[Any] = node.arguments
        if len(given) > _MOST_ARGUMENTS_OF_CALL:
            return None
        if not all(type(each) is kind and len(repr(each)) < 100 for each in given if _fits(each)):  # noqa: PLR2004 - fits on a line
            return None
        if not all(map(_fits, given)):
            return None
        return f"{name}({', '.join(map(repr, given))})"

    return show


def _fits(value: object) -> bool:
    return not isinstance(value, int) or value.bit_length() < _MOST_BITS


def _path(node: Made) -> str | None:
    parts = node.arguments
    if len(parts) > _MOST_ARGUMENTS:
        return None
    if not all(isinstance(each, str) and len(each) < 1000 for each in parts):  # noqa: PLR2004 - no part of a name is longer
        return None
    return f"Path({'/'.join(parts).replace('//', '/', 1)!r})"


_KNOWN: Final[dict[str, Callable[[Made], str | None]]] = {
    "datetime.datetime": _datetime,
    "datetime.date": _date,
    "datetime.timedelta": _as_call("timedelta", int),
    "decimal.Decimal": _as_call("Decimal", str),
    "fractions.Fraction": _as_call("Fraction", int),
    "builtins.range": _as_call("range", int),
    "builtins.slice": _as_call("slice", int),
    "builtins.complex": _as_call("complex", float),
    "pathlib.PosixPath": _path,
    "pathlib.PurePosixPath": _path,
    "pathlib._local.PosixPath": _path,
}
