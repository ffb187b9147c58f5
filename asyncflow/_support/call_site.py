"""Tells our frames from the user's, and finds where the user's code has called us.

Imports nothing of ours.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from types import FrameType

_PACKAGE: Final = os.path.dirname(os.path.dirname(__file__)) + os.sep  # noqa: PTH120 - text is what is compared


def is_own(file: str) -> bool:
    """Whether a frame's file is one of this package: of its folder, not of one called like it."""
    return file.startswith(_PACKAGE)


def importing_line() -> tuple[str, int]:
    """The file that is just being imported, and the line of it that has called us; else nothing."""
    frame = _importing_frame()
    return ("", 0) if frame is None else (frame.f_code.co_filename, frame.f_lineno)


def importing_module() -> str:
    """The name of the module that is just being imported: `__main__` for the program itself."""
    frame = _importing_frame()
    return "" if frame is None else str(frame.f_globals.get("__name__", ""))


def _importing_frame() -> FrameType | None:
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - a traceback is not there yet
    while frame is not None and frame.f_code.co_name != "<module>":
        frame = frame.f_back
    return frame


def calling_line() -> tuple[str, int]:
    """The file and the line of the innermost call that is not asyncflow's own; else nothing."""
    frame = sys._getframe(1)  # noqa: SLF001 - a traceback is not there yet
    while is_own(frame.f_code.co_filename):
        if frame.f_back is None:
            return "", 0
        frame = frame.f_back
    return frame.f_code.co_filename, frame.f_lineno
