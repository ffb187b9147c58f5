"""Raises an exception at a place where a signal handler could raise it.

The place is in the package, or in asyncio while that does something for the package: it is called
by the package, or has a callback or a task of the package to call.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import contextmanager
from opcode import opmap
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import asyncflow
from asyncflow._support.event_loop import UncancellableTask
from asyncflow._support.waiter import Waiter

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

_PACKAGE: Final = str(Path(asyncflow.__file__).parent)
_ASYNCIO: Final = str(Path(asyncio.__file__).parent)
_CHECKED: Final = {
    number
    for name, number in opmap.items()
    if name.startswith(("CALL", "RESUME", "JUMP_BACKWARD", "POP_JUMP_BACKWARD"))
}
"""After these instructions the interpreter looks whether a signal has come."""


class SignalError(Exception):
    """What a signal handler of an application raises."""


def is_in_callback(frame: FrameType | None, but_not_in: str = "") -> bool:
    """Whether asyncio called this, so that the exception ends the call and not the loop.

    With the name of a file, no if it has code from there: then the file's own task would end.
    """
    if frame is not None and _calls_back(frame):  # it has not yet come to what catches the call's
        return False
    while frame is not None and frame.f_code.co_filename != but_not_in:
        if _calls_back(frame):
            return True
        frame = frame.f_back
    return False


def _calls_back(frame: FrameType) -> bool:
    return frame.f_code.co_name == "_run" and "asyncio" in frame.f_code.co_filename


def is_for_the_package(frame: FrameType) -> bool:
    """Whether asyncio is in this frame for the package, and not for the test."""
    at: FrameType | None = frame
    while at is not None and at.f_code.co_filename.startswith(_ASYNCIO):
        if at.f_code.co_name == "_run":
            callback = getattr(at.f_locals.get("self"), "_callback", None)
            owner = getattr(callback, "__self__", callback)
            is_own = type(owner).__module__.startswith("asyncflow.")
            return is_own and not isinstance(owner, Waiter)
        at = at.f_back
    if at is not None and at.f_code is Waiter._wake.__code__:  # it wakes a task, perhaps the test's
        task = getattr(at.f_locals.get("wake_up"), "__self__", None)
        return isinstance(task, UncancellableTask)
    return at is not None and at.f_code.co_filename.startswith(_PACKAGE)


def calls_to(frame: FrameType | None) -> str:
    """The functions that called one another down to this one, from asyncio's on."""
    names: list[str] = []
    while frame is not None:
        names.append(f"{frame.f_code.co_qualname}:{frame.f_lineno}")
        frame = None if frame.f_code.co_name == "_run" else frame.f_back
    return " > ".join(reversed(names))


class RaisingHandler:
    """Counts the places that are passed, and raises at one of them."""

    def __init__(self, at: int, *, in_asyncio: bool = False) -> None:
        """Raise at that place, of those in the package or of those in asyncio."""
        self._at, self._passed, self._in_asyncio = at, 0, in_asyncio
        self._last: dict[FrameType, int] = {}
        self.has_raised = False
        """Whether that place was reached."""
        self.where = ""
        """The function that the place is in, and those that called it."""

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Trace this thread within the block."""
        before = sys.gettrace()
        sys.settrace(self._on_call)
        try:
            yield
        finally:
            sys.settrace(before)

    def _on_call(self, frame: FrameType, _what: str, _: Any) -> Any:
        folder = _ASYNCIO if self._in_asyncio else _PACKAGE
        if self.has_raised or not frame.f_code.co_filename.startswith(folder):
            return None
        if self._in_asyncio and not is_for_the_package(frame):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return self._on_instruction

    def _on_instruction(self, frame: FrameType, what: str, _: Any) -> Any:
        if what == "return":
            self._last.pop(frame, None)
        elif what == "opcode" and not self.has_raised:
            if self._last.get(frame) in _CHECKED:
                self._passed += 1
                if self._passed >= self._at and is_in_callback(frame):
                    self.has_raised, self.where = True, calls_to(frame)
                    self._last.clear()
                    raise SignalError
            self._last[frame] = frame.f_code.co_code[frame.f_lasti]
        return self._on_instruction
