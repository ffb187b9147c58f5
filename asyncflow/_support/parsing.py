"""Parses Python source, in any thread."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import ast

_TRIES: Final = 5
_lock = threading.Lock()


def _renew_lock() -> None:
    """In a forked child, no thread is left that could give it back."""
    global _lock  # noqa: PLW0603 - what a fork leaves is of the whole process
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock)


def parse(source: str | bytes) -> ast.Module:
    """The syntax tree of a source, as `ast.parse` gives it.

    CPython counts how deep a tree is in one place for all threads, and raises `SystemError` if two
    of them build trees at once (https://github.com/python/cpython/issues/106905). So we parse in
    one thread at a time, and try again if other code has parsed something meanwhile.

    Raises:
        SyntaxError, ValueError, RecursionError, MemoryError: As from `ast.parse`.
    """
    import ast

    with _lock:
        for _ in range(_TRIES - 1):
            try:
                return ast.parse(source)
            except SystemError:
                continue
        return ast.parse(source)
