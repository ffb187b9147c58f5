"""Writes the values of a run into the cache of this machine, and says what has to be uploaded."""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING, Final, Self

from asyncflow.errors import StoreError
from asyncflow.store.blobs import BlobStore
from asyncflow.store.files import explain_write
from asyncflow.store.object_store.node_segment import NodeSegment

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from asyncflow._support.guarded_descriptor import Descriptor
    from asyncflow.codec import Chunk
    from asyncflow.store.blobs import BlobWriter
    from asyncflow.store.object_store.node_cache import NodeCache
    from asyncflow.store.value_interface import GoOn, Tell


class NodeSink:
    """Takes the bytes of one run's values; see `ValueSink`.

    `sync` tells what was written since it was called last. It is for whoever is told to see that
    this is in the store before anybody hears of the values.
    """

    def __init__(self, cache: NodeCache, flow: str, run_id: str, node: str, tell: Tell) -> None:
        """Touch no file yet."""
        self._cache, self._node, self._tell = cache, node, tell
        self._blobs = BlobStore(cache.local)
        self._segment = NodeSegment(cache.local, flow, run_id, node)
        self._name: Final = f"flows/{flow}/{run_id}/{self._segment.name}"
        self._file: Final = f"{run_id}/{self._segment.name}"
        self._new: list[bytes] = []
        self._lock, self._telling = Lock(), Lock()
        self._told = 0  # where the last value of the segment ends that was told

    def __repr__(self) -> str:
        return f"<NodeSink {self._name}>"

    def append(self, data: Chunk) -> tuple[str, int]:
        """Append to the node's segment.

        Raises:
            StoreError: It cannot be written.
        """
        return self._file, self._segment.append(data)

    def put_large(self, chunks: Iterable[Chunk], size: int, go_on: GoOn | None = None) -> bytes:
        """Store a blob in the cache, and return its digest.

        Raises:
            StoreError: It cannot be written.
        """
        digest = self._blobs.put_new(chunks, size, go_on)
        self.add_blob(digest)
        return digest

    def begin_large(self) -> PendingBlob:
        """A blob in the making."""
        return PendingBlob(self, self._blobs.writer())

    def add_blob(self, digest: bytes) -> None:
        """A blob is in the cache: it stays there until it is uploaded.

        Raises:
            StoreError: It is there no more.
        """
        try:
            self._cache.set_pending(self._node, digest)
        except OSError as error:
            raise StoreError(explain_write(self._cache.local.blob(digest), error)) from error
        with self._lock:
            self._new.append(digest)

    def sync(self) -> None:
        """Tell what was written. When it returns, all values appended before were told.

        Raises:
            StoreError: It is told to somebody who uploads it now, and that failed.
        """
        with self._telling:  # another thread may be about to tell what this one has written
            end, new = self._segment.end, list[bytes]()
            if self._new:
                with self._lock:
                    new, self._new = self._new, []
            if not new and end == self._told:
                return
            try:
                if end == self._told:
                    self._tell("", 0, new)
                else:
                    self._tell(self._name, end, new)
            except BaseException:
                with self._lock:  # nobody may hear of any value before this was told
                    self._new = [*new, *self._new]
                raise
            self._told = end

    @property
    def opened(self) -> Sequence[Descriptor]:
        """The segment's descriptor, while it is open."""
        return self._segment.opened

    def close(self) -> None:
        """Close the segment; a later `append` opens it again."""
        self._segment.close()


class PendingBlob:
    """A blob in the making, which is uploaded once it is committed; see `LargeValue`."""

    def __init__(self, sink: NodeSink, writer: BlobWriter) -> None:
        """Begin it with its `with` block."""
        self._sink, self._writer = sink, writer

    def write_and_hash(self, chunks: Sequence[bytes]) -> None:
        """Append the chunks.

        Raises:
            StoreError: They could not be written.
        """
        self._writer.write_and_hash(chunks)

    @property
    def digest(self) -> bytes:
        """blake3 of everything written."""
        return self._writer.digest

    def commit(self, digest: bytes) -> None:
        """Store it under its digest.

        Raises:
            StoreError: That failed; the value does not exist.
        """
        self._writer.commit(digest)
        self._sink.add_blob(digest)

    def __enter__(self) -> Self:
        self._writer.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._writer.__exit__(*exception)
