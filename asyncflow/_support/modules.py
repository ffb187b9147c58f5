"""Where a module's code comes from, and what a dotted name means in it."""

from __future__ import annotations

import os
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from types import ModuleType


def file_of(module: ModuleType) -> str:
    """The real path of a module's file; empty if it has none."""
    file = getattr(module, "__file__", None)
    return _real_path(file) if isinstance(file, str) and file else ""


@lru_cache(maxsize=256)
def _real_path(file: str) -> str:
    return os.path.realpath(file)


def travelled_to(folder: str, root: str) -> None:
    """Files below this folder are those that a program on another machine has below `root`."""
    _travelled[folder + os.sep] = root.rstrip(os.sep) + os.sep


def has_travelled() -> bool:
    """Whether this process uses files that were sent to its machine."""
    return bool(_travelled)


def known_as(file: str) -> str:
    """The path of a file on the machine of the program that it was sent by; else its own."""
    for folder, root in _travelled.items():
        if file.startswith(folder):
            return root + file[len(folder) :]
    return file


_travelled: Final[dict[str, str]] = {}


def find_member(module: ModuleType | None, qualname: str) -> Any:
    """The object that a module has under a name such as `Outer.Inner`; None if there is none."""
    found: Any = module
    for part in qualname.split("."):
        found = getattr(found, part, None)
    return found
