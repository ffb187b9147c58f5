"""The working directory, and paths that do not depend on it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from asyncflow.errors import WorkingDirectoryError


def import_path() -> list[str]:
    """`sys.path` without entries that are not text. `import` ignores those as well."""
    entries: list[object] = [*sys.path]
    return [entry for entry in entries if isinstance(entry, str)]


def working_directory() -> str:
    """The working directory; empty if it was deleted."""
    try:
        return os.getcwd()  # noqa: PTH109 - as text
    except FileNotFoundError:
        return ""


def absolute(path: str | os.PathLike[str]) -> Path:
    """The absolute path.

    Raises:
        WorkingDirectoryError: The path is relative, and the working directory is gone.
    """
    try:
        return Path(path).absolute()
    except FileNotFoundError:
        raise WorkingDirectoryError(path) from None
