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
        return os.getcwd()  # noqa: PTH109 - text is wanted
    except FileNotFoundError:
        return ""


def absolute(path: str | os.PathLike[str]) -> Path:
    """The path from the root on.

    Raises:
        WorkingDirectoryError: It is told from the working directory, and that is gone.
    """
    try:
        return Path(path).absolute()
    except FileNotFoundError:
        raise WorkingDirectoryError(path) from None
