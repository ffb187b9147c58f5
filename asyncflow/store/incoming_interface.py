"""The protocol of a run on its way into a store: what `RunStore.receive` gives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, Self

if TYPE_CHECKING:
    from collections.abc import Iterable

    from asyncflow.codec import Chunk


class IncomingRun(Protocol):
    """A run that is being copied into a store: nobody finds it there before `commit`.

    What a crash leaves of it is used when the same run is copied again, or is deleted by a garbage
    collection. Its place is locked until `close`.
    """

    def has_large(self, digest: bytes, size: int) -> bool:
        """Whether the store has this large value; if so, it stays for the next hour at least."""

    def put_large(self, digest: bytes, size: int, chunks: Iterable[Chunk]) -> None:
        """Store a large value.

        Raises:
            ArtifactCorruptError: The chunks have another hash.
            StoreError: It cannot be written.
        """

    def put_segment(self, name: str, size: int, chunks: Iterable[Chunk]) -> None:
        """Store a segment of that length, unless it is there from an earlier attempt.

        Raises:
            StoreError: It cannot be written.
        """

    def read_segment(self, name: str, offset: int, size: int) -> bytes:
        """So many bytes of a segment that was stored; fewer where it ends.

        Raises:
            FileNotFoundError: It was not stored.
        """

    def delete_segment(self, name: str) -> None:
        """Delete a segment that is not what it should be, so that the next attempt stores it anew.

        Raises:
            StoreError: It cannot be deleted.
        """

    def put_journal(self, chunks: Iterable[bytes]) -> None:
        """Store the journal, in place of one from an earlier attempt.

        Raises:
            StoreError: It cannot be written.
        """

    def put_file(self, name: str, data: bytes) -> None:
        """Store a small file, such as `summary`.

        Raises:
            StoreError: It cannot be written.
        """

    def commit(self) -> None:
        """Make it a run of the store, in one step, which survives a power cut afterwards.

        Raises:
            StoreError: There is a run with this id by now, or it cannot be written.
        """

    def close(self) -> None:
        """Leave it as it is, and let others copy it. Harmless when repeated."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...
