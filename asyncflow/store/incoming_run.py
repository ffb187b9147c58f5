"""A run on its way into a local store: implements `asyncflow.store.incoming_interface.IncomingRun`.

Its files are gathered in `copying/FLOW/RUN`, or `copying/FLOW/.removed/RUN`. The commit renames the
folder to its place among the runs. Of a removed run there may be files already: each of the new
ones is renamed to its place, and replaces a shorter one.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Self

from asyncflow._support.commit_points import reached
from asyncflow._support.fork_safety import keep_from_children, no_forks
from asyncflow.errors import ArtifactCorruptError, StoreError
from asyncflow.store.blobs import BlobStore
from asyncflow.store.files import explain_write, sync_file, write_all
from asyncflow.store.layout import COPYING
from asyncflow.store.run_ids import NEWEST, REMOVED, RUN_ID, note_run
from asyncflow.store.seen_blobs import SeenBlobs

if TYPE_CHECKING:
    from collections.abc import Iterable

    from asyncflow.codec import Chunk
    from asyncflow.store.folders import Folder
    from asyncflow.store.layout import Layout

_JOURNAL: Final = "journal"
_DRAFT: Final = ".draft"
_LOCK_SECONDS: Final = 0.5  # whoever has the lock copies a run


class LocalIncomingRun:
    """A run that is being copied into a folder of a local store."""

    def __init__(self, layout: Layout, flow: str, run_id: str, *, removed: bool) -> None:
        """Make its folder, and lock it.

        Raises:
            NotFoundError: A flow or a run cannot have that name.
            StoreError: Another process is copying it, or the store cannot be written to.
        """
        folder = layout.removed_dir(flow, run_id) if removed else layout.run_dir(flow, run_id)
        self._place: Final = os.fspath(folder)
        self._layout, self._flow, self._run_id, self._removed = layout, flow, run_id, removed
        self._blobs = BlobStore(layout, durable=True)
        self._seen = SeenBlobs()
        self._parents = (COPYING, flow, REMOVED) if removed else (COPYING, flow)
        try:
            layout.folder("flows", flow, make=True).close()  # there is no blob before a flow
            with no_forks():
                self._folder: Folder = layout.folder(*self._parents, run_id, make=True)
                keep_from_children(self._folder)
            locked = self._folder.lock(_LOCK_SECONDS)
        except OSError as error:
            raise StoreError(explain_write(self._place, error, doing="copy to")) from error
        if not locked:
            holder = self._folder.holder()
            self.close()
            raise StoreError(f"{holder} is copying the run {self._place}: wait for it")

    def __repr__(self) -> str:
        return f"<LocalIncomingRun {self._place}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the folder, which unlocks it."""
        with no_forks():
            self._folder.close()

    # --- values ---------------------------------------------------------------------------------

    def has_large(self, digest: bytes, size: int) -> bool:
        """Whether the store has this blob, whole."""
        if not self._blobs.has(digest, size):
            return False
        self._seen.note(digest, size)
        return True

    def put_large(self, digest: bytes, size: int, chunks: Iterable[Chunk]) -> None:
        """Store a blob.

        Raises:
            ArtifactCorruptError: The chunks have another hash.
            StoreError: It cannot be written.
        """
        if (found := self._blobs.put_new(chunks, size)) != digest:
            raise ArtifactCorruptError(
                f"the value {digest.hex()} was to be copied, and its bytes are those of "
                f"{found.hex()}"
            )
        self._seen.note(digest, size)

    def put_segment(self, name: str, size: int, chunks: Iterable[Chunk]) -> None:
        """Write a segment under another name, then rename it.

        Raises:
            StoreError: It cannot be written.
        """
        with suppress(FileNotFoundError):
            if self._folder.status(name).st_size == size:
                return
        self._write(name, chunks)

    def read_segment(self, name: str, offset: int, size: int) -> bytes:
        """So many bytes of a segment.

        Raises:
            FileNotFoundError: It was not stored.
        """
        descriptor = self._folder.open_file(name, os.O_RDONLY)
        try:
            return os.pread(descriptor, size, offset)
        finally:
            os.close(descriptor)

    def delete_segment(self, name: str) -> None:
        """Delete a segment.

        Raises:
            StoreError: It cannot be deleted.
        """
        try:
            self._folder.delete(name)
        except OSError as error:
            raise StoreError(explain_write(f"{self._folder.path}/{name}", error)) from error

    # --- other files ----------------------------------------------------------------------------

    def put_journal(self, chunks: Iterable[bytes]) -> None:
        """Write the journal under another name, then rename it.

        Raises:
            StoreError: It cannot be written.
        """
        self._write(_JOURNAL, chunks)

    def put_file(self, name: str, data: bytes) -> None:
        """Write a file under another name, then rename it.

        Raises:
            StoreError: It cannot be written.
        """
        self._write(name, [data])

    def _write(self, name: str, chunks: Iterable[Chunk]) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        try:
            descriptor = self._folder.open_file(_DRAFT, flags)
            try:
                for chunk in chunks:
                    write_all(descriptor, [chunk])
                sync_file(descriptor)
            finally:
                os.close(descriptor)
            reached("copy.file")
            self._folder.rename(_DRAFT, self._folder, name)
            reached("copy.written")
        except OSError as error:
            raise StoreError(explain_write(f"{self._folder.path}/{name}", error)) from error

    # --- the commit -----------------------------------------------------------------------------

    def commit(self) -> None:
        """Rename the folder, or its files, to their place.

        Raises:
            StoreError: There is a run with this id by now, or it cannot be written.
        """
        self._seen.check(self.has_large)
        try:
            with suppress(FileNotFoundError):
                self._folder.delete(_DRAFT)
            self._folder.sync()
            self._move()
            if RUN_ID.fullmatch(self._run_id):
                with self._layout.folder(NEWEST, make=True) as newest_ids:
                    note_run(self._flow, int(self._run_id), newest_ids)
        except OSError as error:
            if error.errno in {errno.ENOTEMPTY, errno.EEXIST}:
                raise StoreError(f"there is something at {self._place} by now") from error
            raise StoreError(explain_write(self._place, error, doing="copy to")) from error

    def _move(self) -> None:
        names = ("flows", self._flow, REMOVED) if self._removed else ("flows", self._flow)
        with (
            self._layout.folder(*names, make=True) as runs,
            self._layout.folder(*self._parents) as waiting,
        ):
            reached("copy.commit")
            if self._removed:
                with runs.child(self._run_id, make=True) as kept:
                    self._merge_into(kept)
                    kept.sync()
                with suppress(OSError):  # a file has come into it
                    waiting.delete_folder(self._run_id)
            else:
                waiting.rename(self._run_id, runs, self._run_id)
            reached("copy.committed")
            runs.sync()
        with suppress(OSError), self._layout.folder(COPYING) as copying:
            if self._removed:
                with copying.child(self._flow) as flow:
                    flow.delete_folder(REMOVED)
            copying.delete_folder(self._flow)

    def _merge_into(self, kept: Folder) -> None:
        for entry in self._folder.entries():
            there = -1
            with suppress(FileNotFoundError):
                there = kept.status(entry.name).st_size
            if there < entry.stat(follow_symlinks=False).st_size:
                self._folder.rename(entry.name, kept, entry.name)
            else:
                self._folder.delete(entry.name)
