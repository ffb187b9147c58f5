"""The file for a worker's output of one stream."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class Spool:
    """An unnamed append-only file; it vanishes when the last process has closed it.

    The last reference closes it: output may wait to be read when its worker is long gone.
    """

    __slots__ = ("__weakref__", "descriptor")

    def __init__(self, folder: Path) -> None:
        try:
            self.descriptor = _open_unnamed(folder)
        except OSError as error:
            error.filename = os.fspath(folder)  # the file has no name; the folder has one
            raise

    def size(self) -> int:
        return os.fstat(self.descriptor).st_size

    def read(self, offset: int, count: int) -> bytes:
        """Read up to so many bytes."""
        return os.pread(self.descriptor, count, offset)

    def close(self) -> None:
        """Close it, whatever still refers to it. Harmless when repeated."""
        if self.descriptor >= 0:
            number, self.descriptor = self.descriptor, -1
            os.close(number)

    def __del__(self) -> None:
        with suppress(AttributeError, OSError):
            self.close()


def _open_unnamed(folder: Path) -> int:
    """As `tempfile.TemporaryFile` does it, whose imports take 5 ms of an engine's start."""
    flags = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC
    with suppress(AttributeError, OSError):  # this system or file system may have none
        return os.open(folder, flags | os.O_TMPFILE, 0o600)
    path = folder / f".spool-{os.urandom(8).hex()}"
    descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600)
    path.unlink()
    return descriptor
