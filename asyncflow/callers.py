"""Whose code a frame is, and where in the user's code something of ours was called.

Imports nothing of ours.
"""

from __future__ import annotations

import os
import sys
from typing import Final

_PACKAGE: Final = os.path.dirname(__file__) + os.sep  # noqa: PTH120 - text is what is compared


def is_own(file: str) -> bool:
    """Whether a frame's file is one of this package: of its folder, not of one called like it."""
    return file.startswith(_PACKAGE)


def importing_line() -> tuple[str, int]:
    """The file that is just being imported, and the line of it that has called us; else nothing."""
    frame = sys._getframe(1)  # noqa: SLF001 - a traceback is not there yet
    while frame.f_code.co_name != "<module>":
        if frame.f_back is None:
            return "", 0
        frame = frame.f_back
    return frame.f_code.co_filename, frame.f_lineno


def calling_line() -> tuple[str, int]:
    """The file and the line of the innermost call that is not asyncflow's own; else nothing."""
    frame = sys._getframe(1)  # noqa: SLF001 - a traceback is not there yet
    while is_own(frame.f_code.co_filename):
        if frame.f_back is None:
            return "", 0
        frame = frame.f_back
    return frame.f_code.co_filename, frame.f_lineno
