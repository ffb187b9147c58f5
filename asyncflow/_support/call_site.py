"""Tells our frames from the user's, and finds where the user's code called us.

It imports nothing else of asyncflow.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from types import FrameType

_PACKAGE: Final = os.path.dirname(os.path.dirname(__file__)) + os.sep  # noqa: PTH120 - paths are compared as text


def is_own(file: str) -> bool:
    """Whether the file of a frame is in this package's folder; a folder of a like name is not."""
    return file.startswith(_PACKAGE)


def importing_line() -> tuple[str, int]:
    """The file that is being imported and the line in it that called us; else nothing."""
    frame = _importing_frame()
    return ("", 0) if frame is None else (frame.f_code.co_filename, frame.f_lineno)


def importing_module() -> str:
    """The name of the module that is being imported: `__main__` for the program itself."""
    frame = _importing_frame()
    return "" if frame is None else str(frame.f_globals.get("__name__", ""))


def _importing_frame() -> FrameType | None:
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - there is no traceback yet
    while frame is not None and frame.f_code.co_name != "<module>":
        frame = frame.f_back
    return frame


def calling_line() -> tuple[str, int]:
    """The file and line of the innermost call from code outside asyncflow; else nothing."""
    frame = sys._getframe(1)  # noqa: SLF001 - there is no traceback yet
    while is_own(frame.f_code.co_filename):
        if frame.f_back is None:
            return "", 0
        frame = frame.f_back
    return frame.f_code.co_filename, frame.f_lineno
