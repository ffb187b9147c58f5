"""Everything on disk: values and their refs, blobs in shards, the journal of each run.

Other folders open a store once, with `open_store`, and know it from there on by the protocols in
`asyncflow.store.interface`. Paths of a store's files stay in here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import os

    from asyncflow.store.interface import RunStore


def open_store(
    location: str | os.PathLike[str],
    *,
    create: bool = False,
    known: bool = False,
    cache: str = "",
) -> RunStore:
    """The store at this location: a folder, or a URL such as `s3://bucket/prefix`.

    With `create`, a missing one is created; any number of processes may create the same store at
    once. A `known` one was opened on this machine before, so it is not asked whether it is there.
    `cache` is the folder for copies from an object store; if empty, the usual one.

    Raises:
        WorkingDirectoryError: It is in the working directory, and that is gone.
        StoreFormatError: A newer asyncflow wrote it, or it is no store at all.
        StoreError: It is not there, or cannot be made or read; the message says what to do.
    """
    from asyncflow._support.locations import is_url

    if is_url(location):
        from asyncflow.store.object_store.object_store import ObjectStore

        return ObjectStore.open(str(location), create=create, known=known, cache=cache)
    from asyncflow.store.local_store import LocalStore

    return LocalStore.open(location, create=create)


def import_local_store() -> None:
    """Import what a store in a folder needs, before a fork: once for all processes."""
    import asyncflow._support.locations
    import asyncflow.store.local_store
    import asyncflow.store.value_files  # noqa: F401 - that it is imported is all that is wanted
