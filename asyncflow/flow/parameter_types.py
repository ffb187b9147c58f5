"""The types that a parameter can have, and how text and Python values become values of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from asyncflow.flow.delayed_values import ConfigBase, Expression

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_TRUE: Final = frozenset({"true", "1", "yes", "on", "y", "t"})
_FALSE: Final = frozenset({"false", "0", "no", "off", "n", "f"})


class JSONType:
    """The type of a parameter whose text is parsed as JSON: `Parameter("x", type=JSONType)`."""


def inferred_type(default: object, *, several: bool) -> type[Any]:
    """The type of a parameter that has this default; `several`: that of its items."""
    if isinstance(default, Expression | ConfigBase):
        return str  # until it is evaluated
    if several and isinstance(default, list | tuple):
        return inferred_type(default[0], several=False) if default else str
    for candidate in (bool, int, float, str):
        if isinstance(default, candidate):
            return candidate
    return str if default is None or callable(default) else JSONType


def _to_str(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _to_int(value: Any) -> int:
    if isinstance(value, str):
        return int(value)
    if isinstance(value, bool):
        raise TypeError
    return int(value.__index__())  # not int(value), which would truncate a float


def _to_float(value: Any) -> float:
    if isinstance(value, bool) or not (isinstance(value, str) or hasattr(value, "__float__")):
        raise TypeError
    return float(value)


def _to_bool(value: Any) -> bool:
    text = str(value).strip().lower()
    if text not in _TRUE and text not in _FALSE:
        raise ValueError
    return text in _TRUE


def _to_json(value: Any) -> Any:
    import json

    if isinstance(value, str):
        return json.loads(value)
    json.dumps(value)
    return value


CONVERTERS: Final[Mapping[type[Any], Callable[[Any], Any]]] = {
    str: _to_str,
    int: _to_int,
    float: _to_float,
    bool: _to_bool,
    JSONType: _to_json,
}
"""By type; each raises ValueError, TypeError, AttributeError or OverflowError for a wrong value."""
