"""Names and messages of classes and exceptions, as text that can be stored.

A metaclass may hide a class's name, and a name or a message may hold characters that UTF-8 cannot
encode. This module imports nothing else of asyncflow.
"""

from __future__ import annotations

from typing import Any, Final

_NAME: Final[Any] = type.__dict__["__qualname__"]
_MODULE: Final[Any] = type.__dict__["__module__"]
_NAME_BYTES: Final = 1 << 10
_HERE: Final = {"builtins", "__main__"}
_TOLD_TO_STOP: Final = 128 + 15  # SIGTERM; the exit status of a worker's signal handler


def class_name(kind: type) -> str:
    """`ValueError`, or `package.module.Error`; the user's metaclass is never called."""
    name = _NAME.__get__(kind)
    try:
        module = "".join(str(_MODULE.__get__(kind)))
    except BaseException:  # noqa: BLE001 - it was deleted, or a user's object raises
        module = "?"
    return storable_text(name if module in _HERE else f"{module}.{name}", _NAME_BYTES)


def text_of(error: BaseException) -> str:
    """The text of an exception; never raises, whatever its `__str__` does."""
    try:
        return "".join(str(error))  # a plain str, even if it is a subclass
    except BaseException as second:  # noqa: BLE001 - the user's __str__ may do anything
        name = class_name(type(second))
        return f"<the exception has no text: its __str__ raised {name}>"


def storable_text(text: str, most_bytes: int) -> str:
    r"""Escape what UTF-8 cannot encode as `\udcNN`; cut out the middle beyond `most_bytes`."""
    data = text.encode("utf-8", "backslashreplace")
    left_out = len(data) - most_bytes
    if left_out <= 0:
        return data.decode("utf-8")
    head, tail = data[: most_bytes // 2], data[-most_bytes // 2 :]
    note = f"\n… {left_out} bytes are left out …\n"
    return note.join(half.decode("utf-8", "ignore") for half in (head, tail))


def shortened(text: str, most: int) -> str:
    """The text, or its beginning and an ellipsis if it has more than `most` characters."""
    return text if len(text) <= most else text[: most - 1] + "…"


def is_stop(error: BaseException) -> bool:
    """Whether the exception comes from outside to end the program, not from the called function."""
    if isinstance(error, SystemExit):
        return error.code == _TOLD_TO_STOP
    return isinstance(error, KeyboardInterrupt | GeneratorExit)
