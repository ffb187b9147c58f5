"""Holds a store's folders open, so that no change can happen outside of the store.

A store may come from elsewhere, with links in it to other people's files. Reading follows them,
because every value is compared with its hash. Code that creates, renames or deletes something uses
a `Folder` instead. It is opened part by part from the store's root on, and no part may be a link.
From then on its descriptor identifies it, so a link that takes its place later is not followed.

Only the root may be reached by a link, because the user has named it.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final, Self

from asyncflow.store.file_locks import holder_of, lock_within

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER_MODE: Final = 0o700
FILE_MODE: Final = 0o600
"""The mode of every writable file of a store: only its owner may read or write it."""

_OPENED: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_A_LINK: Final = "it is a link, and a store never changes files behind a link"


class Folder:
    """One folder of a store, open until it is closed; use it in a `with` block.

    Methods take the name of an entry, not a path, and follow no link. The `OSError` that they raise
    has the whole path as its `filename`.
    """

    __slots__ = ("__weakref__", "_descriptor", "path")

    def __init__(self, path: str, descriptor: int) -> None:
        self.path: Final = path
        self._descriptor = descriptor

    @classmethod
    def open(cls, root: str, *names: str, make: bool = False) -> Self:
        """Open the folder at these names below a store's root; `make` creates missing ones.

        Raises:
            OSError: One is missing, is a link (`ELOOP`), is not a folder, or may not be opened.
        """
        folder = cls(root, os.open(root, _OPENED))
        for name in names:
            with folder:
                folder = folder.child(name, make=make)
        return folder

    def child(self, name: str, *, make: bool = False) -> Self:
        """Open a folder in this one; `make` creates a missing one.

        Raises:
            OSError: As for `open`.
        """
        with self._naming(name):
            try:
                descriptor = self._open_child(name)
            except FileNotFoundError:
                if not make:
                    raise
                with suppress(FileExistsError):
                    os.mkdir(name, FOLDER_MODE, dir_fd=self._descriptor)
                descriptor = self._open_child(name)
        return type(self)(f"{self.path}/{name}", descriptor)

    def _open_child(self, name: str) -> int:
        try:
            return os.open(name, _OPENED | os.O_NOFOLLOW, dir_fd=self._descriptor)
        except NotADirectoryError:  # Linux raises it for a link, too
            if stat.S_ISLNK(self.status(name).st_mode):
                raise OSError(errno.ELOOP, _A_LINK) from None
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close it. Harmless when repeated."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1  # never closed twice
            os.close(descriptor)

    def __repr__(self) -> str:
        return f"<Folder {self.path}>"

    # --- looking ---

    def entries(self) -> list[os.DirEntry[str]]:
        """Its entries. Their status can be read as long as the folder is open.

        Raises:
            OSError: It cannot be read.
        """
        with self._naming(""), os.scandir(self._descriptor) as entries:
            return list(entries)

    def status(self, name: str) -> os.stat_result:
        """The status of an entry; for a link, that of the link itself.

        Raises:
            OSError: There is no such entry.
        """
        with self._naming(name):
            return os.stat(name, dir_fd=self._descriptor, follow_symlinks=False)

    def changed(self) -> int:
        """When an entry was last added, renamed or deleted, in nanoseconds since 1970.

        Raises:
            OSError: It cannot be read.
        """
        with self._naming(""):
            return os.fstat(self._descriptor).st_mtime_ns

    # --- changing ---

    def open_file(self, name: str, flags: int, mode: int = FILE_MODE) -> int:
        """A descriptor of a file in it; the caller closes it.

        Raises:
            OSError: It cannot be opened; it is a link (`ELOOP`), or not a regular file (`ENXIO`).
        """
        flags |= os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
        with self._naming(name):
            descriptor = os.open(name, flags, mode, dir_fd=self._descriptor)
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                os.close(descriptor)
                raise OSError(errno.ENXIO, "not a regular file")
        return descriptor

    def make(self, name: str) -> None:
        """Make a folder in it.

        Raises:
            OSError: The name is taken, or the folder cannot be made.
        """
        with self._naming(name):
            os.mkdir(name, FOLDER_MODE, dir_fd=self._descriptor)

    def touch(self, name: str) -> None:
        """Set the time of modification of one of its files to now.

        Raises:
            OSError: There is no such file, or it is not ours.
        """
        with self._naming(name):
            os.utime(name, dir_fd=self._descriptor, follow_symlinks=False)

    def delete(self, name: str) -> None:
        """Delete a file in it, or a link.

        Raises:
            OSError: There is no such entry, or it cannot be deleted.
        """
        with self._naming(name):
            os.unlink(name, dir_fd=self._descriptor)

    def delete_folder(self, name: str) -> None:
        """Delete an empty folder in it.

        Raises:
            OSError: There is no such folder, it is not empty, or it cannot be deleted.
        """
        with self._naming(name):
            os.rmdir(name, dir_fd=self._descriptor)

    def rename(self, name: str, folder: Folder, new: str) -> None:
        """Move an entry to another folder of the store; a file of that name is replaced.

        Raises:
            OSError: That failed.
        """
        with self._naming(name):
            os.rename(name, new, src_dir_fd=self._descriptor, dst_dir_fd=folder._descriptor)

    def link(self, name: str, folder: Folder, new: str) -> None:
        """Give a file a second name.

        Raises:
            FileExistsError: The name is taken.
            OSError: That failed, as on a file system without hard links.
        """
        with self._naming(name):
            os.link(
                name,
                new,
                src_dir_fd=self._descriptor,
                dst_dir_fd=folder._descriptor,
                follow_symlinks=False,
            )

    def lock(self, seconds: float) -> bool:
        """Lock it until it is closed; False if others hold the lock for that many seconds.

        Raises:
            OSError: The file system has no locks for folders.
        """
        with self._naming(""):
            return lock_within(self._descriptor, seconds)

    def holder(self) -> str:
        """Who holds its lock, as far as the system knows: `process 123`."""
        return holder_of(self._descriptor)

    def sync(self) -> None:
        """Return once the names in it survive a power cut.

        Raises:
            OSError: The disk reports an error.
        """
        with self._naming(""):
            os.fsync(self._descriptor)

    @contextmanager
    def _naming(self, name: str) -> Iterator[None]:
        """Make the system's errors name the whole path."""
        try:
            yield
        except OSError as error:
            path = f"{self.path}/{name}" if name else self.path
            raise OSError(error.errno, error.strerror, path) from error


def is_link(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a link, wherever it leads."""
    return os.path.islink(path)  # noqa: PTH114 - text or a path
