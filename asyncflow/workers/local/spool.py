"""The file for a worker's output of one stream."""

from __future__ import annotations

import fcntl
import os
import tempfile
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
            with tempfile.TemporaryFile(dir=folder) as file:
                self.descriptor = os.dup(file.fileno())
        except OSError as error:
            error.filename = os.fspath(folder)  # the file has no name; the folder has one
            raise
        fcntl.fcntl(self.descriptor, fcntl.F_SETFL, os.O_APPEND)

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
