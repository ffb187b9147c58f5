"""A short text that tells one value from others: what the item of a foreach is called.

It is the value's `repr` where that is short, and otherwise the beginning and the end of it, or what
the value is. Its length is bounded, and so is the time that it takes, whatever the value is: of
plain values and containers only a few members are looked at, and a class's own `__repr__` is called
within limits. Nothing that such a method does comes out as an exception.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # `signal` makes enums, which takes far longer
import re
import sys
import threading
import time
from contextlib import suppress
from enum import Enum
from types import FunctionType
from typing import TYPE_CHECKING, Any, Final

from asyncflow.values import MOST_ITEM_CHARACTERS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import FrameType

_MEMBERS: Final = 6  # of a container; more do not fit into a short text
_DEPTH: Final = 3
_LARGE: Final = 10**40  # the digits of a larger integer take long, and do not fit
_CALL_SECONDS: Final = 0.02  # for one `__repr__`
_AGAIN_SECONDS: Final = 1.0  # after that, if it goes on all the same
_ALL_SECONDS: Final = 1.0  # for all of those of one list
_PLAIN: Final = frozenset({float, bool, complex, type(None), type(...)})
_OWN_MODULES: Final = frozenset({"datetime", "decimal", "fractions", "pathlib", "uuid"})
"""Modules of Python with classes whose texts are short and made at once."""
_ARRAYS: Final = frozenset({"numpy", "pandas", "polars", "torch", "jax", "pyarrow", "scipy"})
"""Packages with large objects that have a shape."""
_ADDRESS: Final = re.compile(r" at 0x[0-9a-fA-F]+")
_STOP_SIGNALS: Final = (_signal.SIGTERM, _signal.SIGINT, _signal.SIGHUP)


class _TooLongError(BaseException):
    """A `__repr__` takes too long."""


class ShortTexts:
    """Makes the texts of a list's items."""

    def __init__(self, most: int = MOST_ITEM_CHARACTERS) -> None:
        """Let no text be longer than `most` characters."""
        self._most = most
        self._left = _ALL_SECONDS
        self._slow: set[int] = set()  # the ids of classes that are not asked again

    def of(self, value: object) -> str:
        """The text of one value; empty if nothing can be told. Raises nothing."""
        kind = type(value)
        try:
            if kind is str and len(value) < self._most - 1:  # type: ignore[arg-type]  # it is text
                return _cut(repr(value), self._most)
            if kind is int and -_LARGE < value < _LARGE:  # type: ignore[operator]  # a number
                return repr(value)
            return _cut(_ADDRESS.sub("", self._text(value, _DEPTH)), self._most)
        except (Exception, _TooLongError):  # noqa: BLE001 - whatever the value's class does
            return ""

    def _text(self, value: Any, depth: int) -> str:
        kind = type(value)
        if kind in _PLAIN:
            return repr(value)
        if kind is int:
            return (
                repr(value) if -_LARGE < value < _LARGE else f"<int of {value.bit_length():,} bits>"
            )
        if kind in {str, bytes, bytearray}:
            return repr(value) if len(value) <= self._most else self._ends(value)
        if kind in _CONTAINERS:
            return self._container(value, depth)
        return self._of_object(value, kind, depth)

    def _ends(self, value: Any) -> str:
        """The beginning and the end of a text, or of bytes."""
        size = (self._most - len("b''…")) // 3
        begin, end = value[: 2 * size], value[-size:]
        if type(value) is not str:
            return f"{bytes(begin)!r}"[:-1] + "…" + f"{bytes(end)!r}"[2:]
        return f"{begin!r}"[:-1] + "…" + f"{end!r}"[1:]

    # --- containers ---

    def _container(self, value: Any, depth: int) -> str:
        begin, end, empty = _CONTAINERS[type(value)]
        if not value:
            return empty
        if not depth:
            return f"{begin}…{end}"
        if type(value) is dict:
            texts = (
                f"{self._text(key, depth - 1)}: {self._text(each, depth - 1)}"
                for key, each in value.items()
            )
        else:
            texts = (self._text(each, depth - 1) for each in value)
        text = self._joined(texts, len(value))
        if type(value) is tuple and len(value) == 1:
            text += ","
        return f"{begin}{text}{end}"

    def _joined(self, texts: Iterable[str], count: int) -> str:
        """The first of these texts, as many as fit."""
        shown: list[str] = []
        room = self._most
        for text in texts:
            shown.append(text)
            room -= len(text) + 2
            if len(shown) == _MEMBERS or room <= 0:
                break
        return ", ".join([*shown, *["…"] * (len(shown) < count)])

    # --- objects ---

    def _of_object(self, value: Any, kind: type, depth: int) -> str:
        module = _module_of(kind).partition(".")[0]  # Python 3.13 has `pathlib._local`
        if module in _OWN_MODULES:
            return repr(value) if module != "pathlib" else repr(str(value))
        if module in _ARRAYS:
            return self._array(value, kind)
        if isinstance(value, Enum):
            return f"{kind.__name__}.{value._name_}"
        members = _members_of(value, kind)
        return self._asked(value, kind) if members is None else self._members(kind, members, depth)

    def _array(self, value: Any, kind: type) -> str:
        shape = getattr(value, "shape", None)
        if shape is None or shape == ():  # a single number
            text = self._asked(value, kind)
            return text if "\n" not in text else f"<{kind.__name__}>"
        what = " ".join(map(str, filter(None, [tuple(shape), getattr(value, "dtype", None)])))
        return f"<{kind.__name__} {what}>"

    def _members(self, kind: type, members: Iterable[tuple[str, Any]], depth: int) -> str:
        named = list(members)
        if named and not depth:
            return f"{kind.__name__}(…)"
        texts = (f"{name}={self._text(each, depth - 1)}" for name, each in named)
        return f"{kind.__name__}({self._joined(texts, len(named))})"

    def _asked(self, value: object, kind: type) -> str:
        """What the class's own `__repr__` says, if it does so in time."""
        if id(kind) in self._slow or self._left <= 0:
            return f"<{kind.__name__}>"
        began = time.perf_counter()
        text = _called_in_time(_repr_of(kind), value)
        took = time.perf_counter() - began
        self._left -= took
        if took > _CALL_SECONDS:
            self._slow.add(id(kind))
        return text if text is not None else f"<{kind.__name__}>"


_CONTAINERS: Final[dict[type, tuple[str, str, str]]] = {
    list: ("[", "]", "[]"),
    tuple: ("(", ")", "()"),
    dict: ("{", "}", "{}"),
    set: ("{", "}", "set()"),
    frozenset: ("frozenset({", "})", "frozenset()"),
}
"""How the text of each begins and ends, and that of an empty one."""


def _cut(text: str, most: int) -> str:
    """A text that is not too long: else its beginning and its end."""
    if len(text) <= most:
        return text
    end = (most - 1) // 3
    return f"{text[: most - 1 - end]}…{text[-end:]}"


def _module_of(kind: type) -> str:
    module = type.__getattribute__(kind, "__module__")
    return module if isinstance(module, str) else ""


def _repr_of(kind: Any) -> Callable[[Any], object]:
    method: Callable[[Any], object] = kind.__repr__
    return method


def _members_of(value: Any, kind: Any) -> Iterable[tuple[str, Any]] | None:
    """What the text of an object says, if its class does not write that by a method of its own."""
    method = kind.__repr__
    if method is object.__repr__:
        return _attributes(value)
    made_by = method.__code__.co_filename if isinstance(method, FunctionType) else None
    if made_by in _files_of("dataclasses", "reprlib") and "__dataclass_fields__" in vars(kind):
        return _fields(value, kind)
    if made_by in _files_of("collections") and isinstance(value, tuple):  # a named tuple
        return zip(kind._fields, tuple.__iter__(value), strict=False)
    return None


def _files_of(*modules: str) -> list[str | None]:
    return [sys.modules[name].__file__ for name in modules if name in sys.modules]


def _attributes(value: object) -> list[tuple[str, Any]]:
    """What an object has, without calling any code of its class."""
    with suppress(AttributeError):
        own = object.__getattribute__(value, "__dict__")
        if type(own) is dict:
            return list(own.items())
    return []


def _fields(value: object, kind: Any) -> Iterator[tuple[str, Any]]:
    """The fields of a dataclass that its text shows."""
    for field in kind.__dataclass_fields__.values():
        if field.repr:
            yield field.name, getattr(value, field.name)


def _called_in_time(method: Callable[[Any], object], value: object) -> str | None:
    """What `method` returns for a value; None if it fails, or takes too long in the main thread.

    Signals that stop the task wait meanwhile, so what comes out has to do with the method alone.
    """
    if threading.current_thread() is not threading.main_thread():
        return _called(method, value)
    if _signal.getsignal(_signal.SIGALRM) is None:  # another language has set it
        return _called(method, value)
    masked = _signal.pthread_sigmask(_signal.SIG_BLOCK, _STOP_SIGNALS)
    try:
        return _called_by_timer(method, value)
    finally:
        _signal.pthread_sigmask(_signal.SIG_SETMASK, masked)


class _Watch:
    """Ends one call by a timer. It does so within the call alone, wherever the timer comes."""

    __slots__ = ("_is_within",)

    def __init__(self) -> None:
        self._is_within = False

    def stop(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - what Python passes
        """Handle the timer's signal."""
        if self._is_within:
            raise _TooLongError

    def call(self, method: Callable[[Any], object], value: object) -> str | None:
        """What the method returns; None if it fails, or is stopped."""
        try:
            self._is_within = True
            text = _called(method, value)
            self._is_within = False
        except _TooLongError:  # just as the method returned
            text = None
        finally:
            self._is_within = False
        return text


def _called_by_timer(method: Callable[[Any], object], value: object) -> str | None:
    watch = _Watch()
    before = _signal.signal(_signal.SIGALRM, watch.stop)
    began = time.monotonic()
    # Where this process has no processor for a while, the timer comes before the call, and again.
    left, interval = _signal.setitimer(_signal.ITIMER_REAL, _CALL_SECONDS, _AGAIN_SECONDS)
    try:
        return watch.call(method, value)
    finally:
        _signal.setitimer(_signal.ITIMER_REAL, 0)
        _signal.signal(_signal.SIGALRM, before)
        if left:  # somebody's own timer
            rest = max(left - (time.monotonic() - began), 1e-6)
            _signal.setitimer(_signal.ITIMER_REAL, rest, interval)


def _called(method: Callable[[Any], object], value: object) -> str | None:
    try:
        text = method(value)
    except BaseException:  # noqa: BLE001 - whatever the class does, its item only stays without a text
        return None
    return text if isinstance(text, str) else None
