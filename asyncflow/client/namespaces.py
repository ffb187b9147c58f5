"""Where the client looks if nothing else is said: in which namespace, and in which store.

A namespace is a tag. While one is chosen, the client finds only runs that have it. At first none
is, and every run is found. A task has a choice of its own, which ends with the task.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from asyncflow._support.locations import is_url
from asyncflow._support.paths import absolute
from asyncflow._support.settings import Settings
from asyncflow._support.user_name import user_name
from asyncflow.errors import StoreError
from asyncflow.flow.current import running_task
from asyncflow.store import open_store

if TYPE_CHECKING:
    from collections.abc import Iterator

_Value = TypeVar("_Value")


class _Choice(Generic[_Value]):
    """What a program has chosen for itself, and each task for itself alone."""

    def __init__(self, name: str) -> None:
        self._of_program: _Value | None = None
        # Other tasks may run in this process later, or at the same time: a choice names its task.
        self._of_task: ContextVar[tuple[object, _Value | None] | None] = ContextVar(
            name, default=None
        )

    def get(self) -> _Value | None:
        task = _this_task()
        if task is None:
            return self._of_program
        chosen = self._of_task.get()
        return chosen[1] if chosen is not None and chosen[0] == task else None

    def set(self, value: _Value | None) -> None:
        task = _this_task()
        if task is None:
            self._of_program = value
        else:
            self._of_task.set((task, value))


def _this_task() -> tuple[str, int] | None:
    task = running_task()
    return None if task is None else (task.pathspec, task.attempt)


_namespace: Final = _Choice[str]("asyncflow_namespace")
_store: Final = _Choice[Path | str]("asyncflow_metadata")
_is_off: Final[ContextVar[bool]] = ContextVar("asyncflow_no_namespace", default=False)

_LOCAL: Final = "local"


# --- the namespace ------------------------------------------------------------------------------


def namespace(ns: str | None) -> str | None:
    """Find only runs with this tag from now on, such as `user:me`; with None, find every run.

    Returns it. In a task it holds until the task ends, else until the program does. Only the client
    heeds it: the engine and the command line do not.
    """
    _namespace.set(ns)
    return ns


def get_namespace() -> str | None:
    """The tag that a run must have to be found; None, as it is at first, if every run is."""
    return None if _is_off.get() else _namespace.get()


def default_namespace() -> str:
    """Find only runs that you have started: set the namespace to `user:NAME`, and return it."""
    name = f"user:{user_name()}"
    _namespace.set(name)
    return name


@contextmanager
def without_namespace() -> Iterator[None]:
    """Find every run within the block."""
    token = _is_off.set(True)
    try:
        yield
    finally:
        _is_off.reset(token)


# --- the store ----------------------------------------------------------------------------------


def store_to_read(store: str | os.PathLike[str] | None) -> str | os.PathLike[str]:
    """The store that was named; else the one chosen by `metadata`, else that of the settings."""
    if store is not None:
        return store
    return _store.get() or Settings.read().store


def metadata(ms: str) -> str:
    """Look at the runs of another store from now on: `local@FOLDER`, or a URL; returns it.

    FOLDER is a store, or has one named `.asyncflow`. A URL such as `s3://bucket/prefix` is that of
    an object store. Only the client heeds it: runs are started in
    the store of the settings.

    Raises:
        ValueError: There is no store.
    """
    given: Any = ms
    if not isinstance(given, str):
        message = f"metadata takes text such as 'local@FOLDER', not {given!r}"
        raise TypeError(message)
    if is_url(ms):
        try:
            _store.set(open_store(ms).location)
        except StoreError as error:
            message = f"there is no store at {ms}: {error}"
            raise ValueError(message) from error
        return get_metadata()
    kind, at, folder = ms.partition("@")
    if not at:
        kind, folder = _LOCAL, ms
    if kind != _LOCAL or not folder:
        message = f"metadata takes 'local@FOLDER', not {ms!r}: runs are kept in folders only"
        raise ValueError(message)
    root = absolute(folder)
    for found in (root, root / ".asyncflow"):
        try:
            open_store(found)
        except StoreError as error:
            reason = error
        else:
            _store.set(found)
            return get_metadata()
    message = f"there is no store at {root}, nor in it: {reason}"
    raise ValueError(message)


def get_metadata() -> str:
    """The store that the client looks at if none is named: `local@FOLDER`."""
    return metadata_of(store_to_read(None))


def metadata_of(store: str | os.PathLike[str]) -> str:
    """What `metadata` takes to look at a store: `local@FOLDER`, or the URL of an object store."""
    return os.fspath(store) if is_url(store) else f"{_LOCAL}@{absolute(store)}"


def default_metadata() -> str:
    """Look at the store of the settings again, and return it: `local@FOLDER`."""
    _store.set(None)
    return get_metadata()


def spin_store(store: str | os.PathLike[str]) -> Path | str:
    """The store with the tasks that `spin --persist` has kept of this one: `.asyncflow_spin`."""
    if is_url(store):
        return f"{store}_spin"
    path = absolute(store)
    return path.with_name(f"{path.name}_spin")


def inspect_spin(datastore_root: str = ".") -> None:
    """Look at the tasks that `spin --persist` has kept, from now on: Metaflow's name for it.

    `datastore_root` is the folder in which the store is. `metadata` leads back.

    Raises:
        ValueError: No task has been kept.
    """
    store = Settings.read().store
    if not is_url(store):
        store = Path(datastore_root) / store
    metadata(metadata_of(spin_store(store)))
