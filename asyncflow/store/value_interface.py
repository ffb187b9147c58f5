"""The protocols by which a store writes and reads the bytes of values.

They belong to `asyncflow.store.interface`, and what it says of waiting and of errors is true here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from asyncflow._support.guarded_descriptor import Descriptor
    from asyncflow.codec import Chunk
    from asyncflow.errors import ArtifactError
    from asyncflow.values import ArtifactRef

    GoOn = Callable[[], object]
    """Raises if the value that is being stored is no longer wanted."""

    Later = Callable[[bytes, Callable[[], None]], object]
    """Receives a digest and a check of the bytes with that digest, to be called later."""

    Tell = Callable[[str, int, Sequence[bytes]], object]
    """Is told what has to be uploaded before anybody hears of some values: the name of a segment
    and up to where it must be stored, and the digests of large values."""


class LargeValue(Protocol):
    """A large value in the making; leaving its `with` block without `commit` drops it."""

    def write_and_hash(self, chunks: Sequence[bytes], /) -> None:
        """Append the chunks, and add them to `digest`.

        Raises:
            StoreError: They could not be written.
        """

    @property
    def digest(self) -> bytes:
        """blake3 of everything written."""

    def commit(self, digest: bytes, /) -> None:
        """Store it under its digest.

        Raises:
            StoreError: That failed; the value does not exist.
        """

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


class ValueSink(Protocol):
    """Takes the bytes of one run's values; one thread at a time may use it.

    A value whose place was returned survives a crash of this process. If the sink is durable, it
    also survives a power cut once `sync` has returned.
    """

    def append(self, data: Chunk, /) -> tuple[str, int]:
        """Store a value of some KiB: the `file` and the `offset` of its ref.

        Raises:
            StoreError: It cannot be written.
        """

    def put_large(self, chunks: Iterable[Chunk], size: int, go_on: GoOn | None = None, /) -> bytes:
        """Store a large value under its digest, and return that.

        If it is there already, it counts as put now: no garbage collection deletes it before the
        tasks that go on now can name it. `go_on` may be called meanwhile; what it raises comes
        through, and the value is not stored. Should something change the chunks meanwhile, the
        digest is that of what was stored.

        Raises:
            StoreError: It cannot be written.
        """

    def begin_large(self) -> LargeValue:
        """Store a large value whose bytes come one after the other."""

    def sync(self) -> None:
        """Make durable what was stored; nothing to do if this is no durable sink.

        Raises:
            StoreError: It cannot be told that it is durable.
        """

    @property
    def opened(self) -> Sequence[Descriptor]:
        """Its descriptors that are open now, always in the same list: a step may close one."""

    def close(self) -> None:
        """Close what is open; a later `append` opens it again."""


class ValueUpload(Protocol):
    """Something that is being uploaded."""

    @property
    def is_done(self) -> bool:
        """Whether it has ended, well or not."""

    @property
    def error(self) -> str:
        """Why it failed; empty if it did not."""


class ValueUploader(Protocol):
    """Uploads what workers of this machine have written, for a store that is elsewhere."""

    @property
    def waiting_bytes(self) -> int:
        """About how many bytes wait to be stored."""

    def add(self, segment: str, end: int, blobs: Sequence[bytes], /) -> ValueUpload:
        """Have stored what a sink has told, see `Tell`. Returns at once.

        Raises:
            StoreError: It is closed.
        """

    def hurry(self) -> None:
        """Wait for nothing that could be uploaded together with what was added: nothing comes."""

    def listen(self, listener: Callable[[], None], /) -> None:
        """Call this, in some thread, whenever an upload may have ended."""

    def close(self) -> None:
        """Upload nothing more. Waits some seconds at most; harmless when repeated."""


class ValueSource(Protocol):
    """Gives the bytes of the values of one flow's runs; threads may share one.

    `name` is that of the artifact, for errors.
    """

    def open_large(
        self, digest: bytes, size: int, *, name: str = "", later: Later | None = None
    ) -> memoryview:
        """A large value, in memory that the caller may change and nobody else sees.

        Its hash is checked; with `later`, that receives the check, which runs when it is called.

        Raises:
            ArtifactMissingError: It does not exist.
            ArtifactCorruptError: Its bytes are not those that were stored.
        """

    def verify_large(self, digest: bytes, size: int, *, name: str = "") -> None:
        """Read and hash a large value, even if this process has done so before.

        Raises:
            ArtifactMissingError: It does not exist.
            ArtifactCorruptError: Its bytes are not those that were stored.
        """

    def read(
        self, ref: ArtifactRef, offset: int, size: int, *, name: str = "", own: bool = False
    ) -> Chunk:
        """So many bytes of a value that is not inline; no hash is checked.

        With `own`, the caller may change them.

        Raises:
            ArtifactMissingError: The file that holds them is gone.
            ArtifactCorruptError: There are fewer.
        """

    def corrupt(self, ref: ArtifactRef, name: str, reason: str) -> ArtifactError:
        """The error for a value that is not what was stored; the next read opens the file anew."""
