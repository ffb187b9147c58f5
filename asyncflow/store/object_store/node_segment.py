"""The segment of a node: one append-only file of a run for all the workers of a node.

The workers append to it at the same time. The kernel keeps appends apart, and the position of a
worker's own descriptor afterwards tells where its bytes are. So whoever uploads the file has one
stream of bytes per run, however many workers there are, and a pack is as large as possible.

If a crash or a full disk leaves a part of a value, no ref names it, and nobody reads it.
"""

from __future__ import annotations

import os
from threading import Lock
from typing import TYPE_CHECKING, Final

from asyncflow._support.commit_points import reached
from asyncflow._support.guarded_descriptor import Descriptor
from asyncflow.errors import StoreError
from asyncflow.store.files import explain_write
from asyncflow.store.segments import SUFFIX

if TYPE_CHECKING:
    from asyncflow.codec import Chunk
    from asyncflow.store.local_store import LocalStore

_MORE_TRIES: Final = 2


class NodeSegment:
    """Appends values to the segment of a node, beside other processes; threads may share one."""

    def __init__(self, cache: LocalStore, flow: str, run_id: str, node: str) -> None:
        """Touch no file; the first value opens it."""
        self._folder: Final = "flows", flow, run_id
        self._open_folder: Final = cache.folder
        self.name: Final = f"{node}{SUFFIX}"
        self.path: Final = f"{cache.run_dir(flow, run_id)}/{self.name}"
        self._fd = -1
        self._pid = 0
        self.opened: Final[list[Descriptor]] = []
        """The descriptor of its file, while that is open: other code may close it by mistake."""
        self.end = 0
        """Where the value that was appended last ends; 0 if there is none."""
        self._lock = Lock()

    def __repr__(self) -> str:
        return f"<NodeSegment {self.path}>"

    def append(self, data: Chunk) -> int:
        """Append a value, and return its offset.

        Raises:
            StoreError: It could not be written.
        """
        with self._lock:
            # A forked child shares the position of the open file with its parent.
            if self._fd < 0 or self._pid != os.getpid():
                self._open()
            reached("segment.append")
            size = len(data)
            try:
                if os.write(self._fd, data) != size:
                    self._write_again(data)
                end = self.end = os.lseek(self._fd, 0, os.SEEK_CUR)
            except OSError as error:
                raise StoreError(explain_write(self.path, error)) from error
            reached("segment.appended")
            return end - size

    def _write_again(self, data: Chunk) -> None:
        """Write all of a value of which only a part was written: a signal, or a full disk.

        That part is not at the end any more, perhaps.
        """
        for _ in range(_MORE_TRIES):
            if os.write(self._fd, data) == len(data):
                return
        raise OSError("a part was written")

    def close(self) -> None:
        """Close the file; a later `append` opens it again."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1  # never closed twice
            os.close(fd)
            self.opened.clear()

    def _open(self) -> None:
        self._close()
        reached("segment.open")
        try:
            with self._open_folder(*self._folder, make=True) as folder:
                flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
                self._fd = folder.open_file(self.name, flags)
        except OSError as error:
            raise StoreError(explain_write(self.path, error)) from error
        self.opened[:], self._pid = [Descriptor(self._fd)], os.getpid()
