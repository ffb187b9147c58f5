"""What a field of a record may be: types, and values that are plain data.

A reader checks what it reads by these, whoever wrote it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from asyncflow.errors import RecordError

if TYPE_CHECKING:
    from collections.abc import Sequence

END_OF_TIME: Final = 253_370_764_800_000_000
"""The year 9999, which every time zone can show."""
_MAX_DEPTH: Final = 32  # of plain data; a graph has six levels
_RUN_ID_DIGITS: Final = 20

Types = frozenset[type]
"""The types that a field may have."""
INT: Final[Types] = frozenset({int})
TEXT: Final[Types] = frozenset({str})
LIST: Final[Types] = frozenset({list})
BYTES: Final[Types] = frozenset({bytes})
MAP: Final[Types] = frozenset({dict})
FLAG: Final[Types] = frozenset({bool})
NUMBER: Final[Types] = frozenset({int, float})
NUMBER_OR_NONE: Final[Types] = frozenset({int, float, type(None)})
INT_OR_NONE: Final[Types] = frozenset({int, type(None)})
TEXT_OR_NONE: Final[Types] = frozenset({str, type(None)})


def check_types(what: str, shape: Sequence[type], kinds: Sequence[Types]) -> None:
    """Raise unless every field has one of its allowed types.

    Raises:
        RecordError: A field has another type, or is missing.
    """
    if len(shape) < len(kinds):
        raise RecordError(f"it is {what} with {len(shape)} fields of {len(kinds)}")
    for at, (kind, allowed) in enumerate(zip(shape, kinds, strict=False)):
        if kind not in allowed:
            raise RecordError(f"field {at} of {what} cannot be a {kind.__name__}")


def is_time(microseconds: int) -> bool:
    """Whether every time zone can show this time: from 1970 to the year 9998."""
    return 0 <= microseconds < END_OF_TIME


_LEAVES: Final = frozenset({type(None), bool, int, float, str})
_LEAF_TYPES: Final = (int, float, str)  # and classes that are made of them
_TEXT: Final = frozenset({str})


def is_plain(value: object, depth: int = _MAX_DEPTH) -> bool:
    """Whether JSON can express a value, and it is nested no deeper than `depth`."""
    level: list[object] = [value]
    while level:  # a call for each value would be most of the time
        below: list[object] = []
        for each in level:
            if type(each) in _LEAVES:
                continue
            if isinstance(each, dict) and depth > 0 and _TEXT.issuperset(map(type, each)):
                below += each.values()
            elif isinstance(each, list) and depth > 0:
                below += each
            elif not isinstance(each, _LEAF_TYPES):
                return False
        level, depth = below, depth - 1
    return True


def is_run_id(text: str) -> bool:
    """Whether a text is a valid run id. Such an id cannot lead out of its flow's folder."""
    return 0 < len(text) <= _RUN_ID_DIGITS and text.isascii() and text.isdecimal()
