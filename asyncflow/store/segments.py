"""Segments: one append-only file per worker and run for values too small for a file of their own.

A segment has no format: a ref has offset, length and hash of each value. If a crash or a full disk
leaves bytes behind the last whole value, no ref names them, and nobody reads them.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from itertools import count
from threading import Lock
from typing import TYPE_CHECKING, Final, Self

from asyncflow._support.commit_points import reached
from asyncflow._support.guarded_descriptor import Descriptor
from asyncflow.errors import StoreError
from asyncflow.store.files import explain_write, sync_file, sync_folder, write_all

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from types import TracebackType

    from asyncflow.codec import Chunk
    from asyncflow.store.folders import Folder

SUFFIX: Final = ".seg"


class SegmentWriter:
    """Appends values to a segment, as its only writer; the first value creates the file.

    `path` is the intended name. If another process is already writing to that file, the name gets a
    number: `path` and `name` are the real ones after the first `append`. Several threads may append
    and sync.
    """

    def __init__(self, path: Path, open_folder: Callable[[], Folder]) -> None:
        """Touch no file; `open_folder` opens the folder of `path` when the file is needed."""
        self._wanted: Final = path
        self._open_folder: Final = open_folder
        self.path = path
        self.name = path.name
        self._fd = -1
        self.opened: Final[list[Descriptor]] = []
        """The descriptor of its file, while that is open: other code may close it by mistake."""
        self._size = 0
        self._pid = 0
        self._unsynced = False
        self._folder_synced = False
        self._sync_error: OSError | None = None
        self._changing = Lock()
        self._syncing = Lock()

    def __repr__(self) -> str:
        state = f"{self._size} bytes" if self._fd >= 0 else "closed"
        return f"<SegmentWriter {self.path} {state}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def append(self, chunks: Sequence[Chunk]) -> int:
        """Write the chunks at the end, and return the offset of the first.

        Raises:
            StoreError: They could not be written; the segment is as before.
        """
        with self._changing:
            # A child that the user's step forked shares the open file, and would not notice what
            # its parent appends.
            if self._fd < 0 or self._pid != os.getpid():
                self._open()
            offset = self._size
            reached("segment.append")
            try:
                self._size = offset + write_all(self._fd, chunks)
            except OSError as error:
                self._take_back(offset)
                raise StoreError(explain_write(self.path, error)) from error
            self._unsynced = True  # only after the write, because a sync may be running
            reached("segment.appended")
            return offset

    def sync(self) -> None:
        """Return once everything appended survives a power cut.

        Raises:
            StoreError: The disk reports an error, now or at an earlier sync: the system reports it
                once, for everything appended until then.
        """
        with self._syncing:  # a second caller waits, and may then find nothing left to sync
            if self._unsynced and self._fd >= 0 and self._sync_error is None:
                self._sync()
            if self._sync_error is not None:
                error = self._sync_error
                raise StoreError(explain_write(self.path, error)) from error

    def _sync(self) -> None:
        reached("segment.sync")
        self._unsynced = False  # this sync may miss later appends
        try:
            sync_file(self._fd)
            if not self._folder_synced:
                sync_folder(self.path.parent)
                self._folder_synced = True
        except OSError as error:
            self._sync_error = error
        else:
            reached("segment.synced")

    def close(self) -> None:
        """Close the file; a later `append` opens it again."""
        with self._changing:
            self._close()

    def _close(self) -> None:
        if self._fd >= 0:
            fd, self._fd, self._sync_error = self._fd, -1, None  # never closed twice
            os.close(fd)
            self.opened.clear()

    def _open(self) -> None:
        self._close()
        try:
            with self._open_folder() as folder:
                for number in count(1):
                    ending = SUFFIX if number == 1 else f"-{number}{SUFFIX}"
                    name = self._wanted.name.removesuffix(SUFFIX) + ending
                    if self._lock(folder, name):
                        return
        except OSError as error:
            raise StoreError(explain_write(self._wanted, error)) from error

    def _lock(self, folder: Folder, name: str) -> bool:
        reached("segment.open")
        fd = folder.open_file(name, os.O_WRONLY | os.O_CREAT)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Continue after whatever an earlier writer has left, whole or torn.
            self._size = os.lseek(fd, 0, os.SEEK_END)
        except BlockingIOError:
            os.close(fd)
            return False
        self.path, self.name = self._wanted.with_name(name), name
        self._fd, self._pid = fd, os.getpid()
        self.opened[:] = [Descriptor(fd)]
        self._folder_synced = False
        return True

    def _take_back(self, offset: int) -> None:
        with suppress(OSError):  # the next value overwrites what cannot be cut off
            os.ftruncate(self._fd, offset)
        with suppress(OSError):
            os.lseek(self._fd, offset, os.SEEK_SET)
