"""Lets mocks be artifacts in a test: they are stored by reference, and are the same when read.

A mock cannot be pickled. Within the process that has made it, a number stands for it well enough.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from itertools import count
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_lock: Final = Lock()
_users: Final[list[int]] = []
_numbers: Final = count(1)
_kept: Final[dict[int, Any]] = {}
"""The mocks that were stored, until the process ends: a run may be read at any later time."""


@contextmanager
def mocks_by_reference() -> Iterator[None]:
    """Within the block, every mock of `unittest.mock` can be stored, in whatever value it is."""
    mock = sys.modules.get("unittest.mock")
    if mock is None:
        yield
        return
    with _lock:
        number = next(_numbers)
        _users.append(number)
        mock.NonCallableMock.__reduce_ex__ = _reduce
    try:
        yield
    finally:
        with _lock:
            _users.remove(number)
            if not _users:
                del mock.NonCallableMock.__reduce_ex__


def _reduce(mock: Any, protocol: int) -> tuple[Any, ...]:  # noqa: ARG001 - as pickle calls it
    _kept[id(mock)] = mock
    return live_mock, (id(mock),)


def live_mock(number: int) -> Any:
    """The mock that was stored under this number.

    Raises:
        LookupError: Another process has stored it.
    """
    try:
        return _kept[number]
    except KeyError:
        message = "a mock can be read only by the process that has stored it"
        raise LookupError(message) from None
