"""Checks the arguments of decorators, and makes plain data of them."""

from __future__ import annotations

import math
from typing import Any

from asyncflow._support.call_site import calling_line
from asyncflow._support.notebook import shown_file
from asyncflow._support.safe_text import storable_text
from asyncflow.errors import FlowError


def mistake(message: str) -> FlowError:
    """The error of a decorator, with the file and the line of the decorator."""
    file, line = calling_line()
    return FlowError(message, file=shown_file(file), line=line)


def number(decorator: str, name: str, value: Any, *, most: float = math.inf) -> float:
    """The argument of a decorator that takes a number.

    Raises:
        FlowError: It is none, or is below zero or above `most`.
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (is_number and 0 <= value <= most and math.isfinite(value)):
        limits = "zero or more" if most == math.inf else f"from 0 to {most:g}"
        message = f"@{decorator} takes a number as `{name}`, {limits}, not {value!r}"
        raise mistake(message)
    return float(value)


def count(decorator: str, name: str, value: Any, *, least: int) -> int:
    """The argument of a decorator that takes a whole number.

    Raises:
        FlowError: It is none, or is below `least`.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        message = f"@{decorator} takes a whole number as `{name}`, {least} or more, not {value!r}"
        raise mistake(message)
    return value


def plain_data(value: Any) -> Any:
    """The value in types that msgpack can pack; any other type as its `repr`."""
    match value:
        case dict():
            return {str(key): plain_data(each) for key, each in value.items()}
        case list() | tuple():
            return [plain_data(each) for each in value]
        case None | bool() | float() | str() | bytes():
            return value
        case int() if -(1 << 63) <= value < 1 << 64:
            return value
        case _:
            return repr(value)


def is_variable_name(name: object) -> bool:
    """Whether this can be the name of an environment variable."""
    return isinstance(name, str) and bool(name) and "=" not in name and is_storable(name)


def is_storable(text: str) -> bool:
    """Whether this can be the name or the value of an environment variable."""
    return "\0" not in text and storable_text(text, len(text) * 4) == text
