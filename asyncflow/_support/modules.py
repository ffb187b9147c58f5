"""Where a module's code comes from, and what a dotted name means in it."""

from __future__ import annotations

import os
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import ModuleType


def file_of(module: ModuleType) -> str:
    """The real path of a module's file; empty if it has none."""
    file = getattr(module, "__file__", None)
    return _real_path(file) if isinstance(file, str) and file else ""


@lru_cache(maxsize=256)
def _real_path(file: str) -> str:
    return os.path.realpath(file)


def find_member(module: ModuleType | None, qualname: str) -> Any:
    """The object that a module has under a name such as `Outer.Inner`; None if there is none."""
    found: Any = module
    for part in qualname.split("."):
        found = getattr(found, part, None)
    return found
