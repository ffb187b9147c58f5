"""Raises an exception at a place in the package where a signal handler could raise it."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from opcode import opmap
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import asyncflow

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

_PACKAGE: Final = str(Path(asyncflow.__file__).parent)
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
    while frame is not None and frame.f_code.co_filename != but_not_in:
        if frame.f_code.co_name == "_run" and "asyncio" in frame.f_code.co_filename:
            return True
        frame = frame.f_back
    return False


class RaisingHandler:
    """Counts the places that are passed, and raises at one of them."""

    def __init__(self, at: int) -> None:
        self._at, self._passed = at, 0
        self._last: dict[FrameType, int] = {}
        self.has_raised = False
        """Whether that place was reached."""

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
        if self.has_raised or not frame.f_code.co_filename.startswith(_PACKAGE):
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
                    self.has_raised = True
                    self._last.clear()
                    raise SignalError
            self._last[frame] = frame.f_code.co_code[frame.f_lasti]
        return self._on_instruction
