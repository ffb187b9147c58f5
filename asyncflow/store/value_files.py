"""The bytes of values in the files of a local store: segments, blobs, and the journal.

It implements `ValueSink` and `ValueSource` of `asyncflow.store.interface`.
"""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Final

from asyncflow.store.blobs import BlobStore, BlobWriter, corrupt, missing, open_blob, unreadable
from asyncflow.store.files import kept_file, open_file, read_at, read_writable_at
from asyncflow.store.mapped_files import map_file
from asyncflow.store.run_ids import REMOVED
from asyncflow.store.segments import SUFFIX, SegmentWriter
from asyncflow.values import Place

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from asyncflow._support.guarded_descriptor import Descriptor
    from asyncflow.codec import Chunk
    from asyncflow.errors import ArtifactError
    from asyncflow.store.layout import Layout
    from asyncflow.store.value_interface import GoOn, Later
    from asyncflow.values import ArtifactRef

_MAPPED_BYTES: Final = 256 << 10  # below, copying costs less than mapping

_BLOB = int(Place.BLOB)  # a plain number: comparing with a member of an enum takes longer


class ValueFilesWriter:
    """Writes the values of one run: small ones to a segment of its own, large ones to blobs."""

    def __init__(
        self, layout: Layout, flow: str, run_id: str, segment_name: str, *, durable: bool
    ) -> None:
        self._run_id = run_id
        self._durable = durable
        self._blobs = BlobStore(layout, durable=durable)
        self._segment = SegmentWriter(
            layout.run_dir(flow, run_id) / f"{segment_name}{SUFFIX}",
            partial(layout.folder, "flows", flow, run_id),
        )

    def __repr__(self) -> str:
        return f"<ValueFilesWriter {self._segment.path}>"

    def append(self, data: Chunk) -> tuple[str, int]:
        """Append to the segment, which the first value creates.

        Raises:
            StoreError: It cannot be written.
        """
        offset = self._segment.append([data])
        return f"{self._run_id}/{self._segment.name}", offset

    def put_large(self, chunks: Iterable[Chunk], size: int, go_on: GoOn | None = None) -> bytes:
        """Store a blob, and return its digest.

        Raises:
            StoreError: It cannot be written.
        """
        return self._blobs.put_new(chunks, size, go_on)

    def begin_large(self) -> BlobWriter:
        """A blob in the making."""
        return self._blobs.writer()

    def sync(self) -> None:
        """Sync the segment, if values must survive a power cut; a blob is synced when it is stored.

        Raises:
            StoreError: The disk reports an error.
        """
        if self._durable:
            self._segment.sync()

    @property
    def opened(self) -> Sequence[Descriptor]:
        """The segment's descriptor, while it is open."""
        return self._segment.opened

    def close(self) -> None:
        """Close the segment; a later `append` opens it again."""
        self._segment.close()


class ValueFilesReader:
    """Reads the values of one flow's runs."""

    def __init__(self, layout: Layout, flow: str) -> None:
        self._layout = layout
        self._blobs = BlobStore(layout)
        self._flow_dir = os.fspath(layout.flow_dir(flow))

    def __repr__(self) -> str:
        return f"<ValueFilesReader {self._flow_dir}>"

    def open_large(
        self, digest: bytes, size: int, *, name: str = "", later: Later | None = None
    ) -> memoryview:
        """A blob, mapped copy-on-write.

        Raises:
            ArtifactMissingError: There is no such file.
            ArtifactCorruptError: Its bytes are not those that were written.
        """
        return self._blobs.open(digest, size, name=name, later=later)

    def verify_large(self, digest: bytes, size: int, *, name: str = "") -> None:
        """Hash a blob, even if this process has done so before.

        Raises:
            ArtifactMissingError: There is no such file.
            ArtifactCorruptError: Its bytes are not those that were written.
        """
        self._blobs.verify(digest, size, name=name)

    def read(
        self, ref: ArtifactRef, offset: int, size: int, *, name: str = "", own: bool = False
    ) -> Chunk:
        """A range of a file.

        Raises:
            ArtifactMissingError: The file that holds it is gone.
            ArtifactCorruptError: The file is too short.
        """
        path = self._path(ref)
        offset += ref.offset
        try:
            try:
                data = _read_file(path, offset, size, own=own)
            except FileNotFoundError:
                data = _read_file(self._other_path(ref), offset, size, own=own)
        except FileNotFoundError as error:
            raise missing(name, path) from error
        except OSError as error:
            raise unreadable(name, path, error) from error
        if len(data) != size:
            raise self.corrupt(ref, name, f"it ends before byte {offset + size}")
        return data

    def corrupt(self, ref: ArtifactRef, name: str, reason: str) -> ArtifactError:
        """The error for a file whose bytes have changed."""
        open_file.cache_clear()  # so that the next read finds a file that was put back meanwhile
        return corrupt(name, self._path(ref), reason)

    def _path(self, ref: ArtifactRef) -> str:
        if ref.place == _BLOB:
            return self._layout.blob(ref.digest)
        return f"{self._flow_dir}/{ref.file}"

    def _other_path(self, ref: ArtifactRef) -> str:
        """Another path of a file that is not in its usual place.

        A segment's run may have been removed. A blob may have been set aside, or just been put
        back.
        """
        if ref.place != _BLOB:
            return f"{self._flow_dir}/{REMOVED}/{ref.file}"
        os.close(open_blob(self._layout, ref.digest))
        path = self._path(ref)
        return path if os.path.exists(path) else self._layout.blob_aside(ref.digest)  # noqa: PTH110 - a path as text takes a fraction of the time


def _read_file(path: str, offset: int, size: int, *, own: bool) -> Chunk:
    if not own:
        return read_at(path, offset, size)
    if size < _MAPPED_BYTES:
        return read_writable_at(path, offset, size)
    file = kept_file(path)
    if os.fstat(file.number).st_size < offset + size:
        return b""  # touching a page behind the end would kill the process
    return map_file(file.number, offset, size)
