"""Syncs the folders in which blobs have their names."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from asyncflow.store.files import sync_folder

if TYPE_CHECKING:
    from asyncflow.store.layout import Layout

_SHARDS: Final = [f"{first:02x}" for first in range(256)]  # the first byte of a digest

_FolderState = tuple[int, int, int]

_synced: Final[dict[str, _FolderState]] = {}
"""What the folders of shards were like when this process last synced them, by their paths."""


def sync_names(layout: Layout, path: str) -> None:
    """Return once the name of a blob survives a power cut, with those of its folders.

    The two above the shard are synced once, after missing shards were made, and again if they have
    changed.

    Raises:
        OSError: The disk reports an error.
    """
    sync_folder(path.rpartition("/")[0])
    blobs = os.fspath(layout.blobs)
    if _synced.get(blobs) != _state_of(blobs):
        _synced[blobs] = _sync_shards(layout, blobs)


def _sync_shards(layout: Layout, path: str) -> _FolderState:
    with layout.folder("blobs") as blobs:
        there = {entry.name for entry in blobs.entries()}
        for name in _SHARDS:
            if name not in there:
                with suppress(OSError):  # another process has made it, or its first blob does
                    blobs.make(name)
        state = _state_of(path)
        blobs.sync()
    sync_folder(layout.root)
    return state


def _state_of(folder: str) -> _FolderState:
    """Which folder it is, and when an entry of it was last made, renamed or deleted."""
    status = os.stat(folder)  # noqa: PTH116 - a path as text takes a fraction of the time
    return status.st_dev, status.st_ino, status.st_ctime_ns
