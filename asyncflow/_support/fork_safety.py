"""Closes our descriptors in processes that the application forks.

A file lock and a socket's end live until the last process that has the descriptor is gone. A child
made by `os.fork`, as multiprocessing makes them on Linux, would keep the journals, limits and
sockets of an engine whose process was killed: its runs would count as running, and its workers
would not notice. A program that is executed, as by subprocess, inherits nothing of this, because
every descriptor here is closed on exec.

So the child closes them. That releases no lock and ends no connection as long as the parent has the
descriptor too. Code that opens or closes one does so within `no_forks`, so that no other thread
forks a child in between, which would have a descriptor that is not registered here.
"""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from threading import get_ident
from typing import TYPE_CHECKING, Any, Final, Protocol
from weakref import WeakSet

from asyncflow._support.sure_condition import SureCondition

if TYPE_CHECKING:
    from collections.abc import Iterator


class Closable(Protocol):
    """A file, a socket or the like; closing it only frees the descriptor, and may be repeated."""

    def close(self) -> Any: ...


_kept: Final[WeakSet[Closable]] = WeakSet()
_changing: Final[list[int]] = []  # threads that are opening or closing something now
_forking: Final[list[int]] = []  # threads that wait until they may fork
_change: Final = SureCondition()


@contextmanager
def no_forks() -> Iterator[None]:
    """Prevent forks by other threads within the block. Several threads may be in such blocks."""
    me = get_ident()
    with _change:
        while _forking and me not in _changing:  # otherwise a fork might wait for ever
            _change.wait()
        _changing.append(me)
    try:
        yield
    finally:
        with _change:
            _changing.remove(me)
            _change.notify_all()


def keep_from_children(opened: Closable) -> None:
    """Close it in every child that is forked from now on. Call this within `no_forks`."""
    with _change:
        _kept.add(opened)


def _before() -> None:
    _change.acquire()  # a re-entrant lock: a signal handler may fork within `no_forks`
    me = get_ident()
    _forking.append(me)
    while any(thread != me for thread in _changing):
        _change.wait()
    _forking.remove(me)


def _after_in_parent() -> None:
    _change.notify_all()
    _change.release()


def _after_in_child() -> None:
    for opened in list(_kept):
        with suppress(OSError):
            opened.close()
    _kept.clear()
    _forking.clear()  # a child has only this one of its parent's threads
    _change.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child
    )
