"""One run per key: which run of a flow was started with a key, as `order-42`.

The file `keys/FLOW/DIGEST` of a store has the id of that run, as decimal digits and a line feed.
DIGEST is the blake3 of the key's text in UTF-8, as hex. Whoever starts a run with the key holds an
exclusive `flock` on the file from before reading it until the new run's first event is on disk, and
writes the new id before that. So of any number of processes one starts the run, and the others find
it. If the process dies in between, the file names a run that has not begun, which counts as none.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from blake3 import blake3

from asyncflow._support.commit_points import reached
from asyncflow._support.fork_safety import keep_from_children, no_forks
from asyncflow.errors import StoreError
from asyncflow.store.file_locks import holder_of, lock_within
from asyncflow.store.run_ids import RUN_ID

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncflow.store.folders import Folder

KEYS: Final = "keys"
"""The folder of a store that has a folder for each flow whose runs have keys."""
_MOST_BYTES: Final = 32
_LOCK_SECONDS: Final = 30.0  # whoever holds it reads a flow's files, and perhaps an earlier run


def key_name(key: str) -> str:
    """The name of the file of a key."""
    return blake3(key.encode()).hexdigest()


def run_in(data: bytes) -> str:
    """The id in the bytes of a key's file; empty if they have none."""
    text = data.decode(errors="replace").strip()
    return text if RUN_ID.fullmatch(text) else ""


class HeldKey:
    """A key that nobody else can look at or give away now."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.run_id = run_in(os.pread(descriptor, _MOST_BYTES, 0))
        """The run that was given the key, which may have begun or not; empty for none."""

    def give_to(self, run_id: str) -> None:
        """Give it to a run that is about to begin; durable when this returns."""
        reached("key.write")
        os.pwrite(self._descriptor, f"{run_id}\n".encode(), 0)
        os.ftruncate(self._descriptor, len(run_id) + 1)
        os.fsync(self._descriptor)
        reached("key.written")
        self.run_id = run_id


@contextmanager
def held_key(folder: Folder, key: str) -> Iterator[HeldKey]:
    """Hold a key of the flow whose keys are in this folder, within the block.

    Raises:
        OSError: Its file cannot be opened.
        StoreError: There are no file locks, or another process holds the key for long.
    """
    name = key_name(key)
    with no_forks():
        file = os.fdopen(folder.open_file(name, os.O_RDWR | os.O_CREAT), "rb+", buffering=0)
        keep_from_children(file)
    try:
        if not lock_within(file.fileno(), _LOCK_SECONDS):
            who = holder_of(file.fileno())
            message = f"cannot start the run of the key {key!r}: {who} is starting it; end that"
            raise StoreError(message)
        yield HeldKey(file.fileno())
    finally:
        with no_forks():
            file.close()
