"""A place for values that are not kept: they are encoded and checked, and then dropped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from blake3 import blake3

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from asyncflow._support.guarded_descriptor import Descriptor
    from asyncflow.codec import Chunk
    from asyncflow.store.value_interface import GoOn


class Unstored:
    """A `ValueSink` that keeps nothing."""

    def __repr__(self) -> str:
        return "<Unstored>"

    def append(self, data: Chunk, /) -> tuple[str, int]:  # noqa: ARG002 - the protocol's
        """Drop a value."""
        return "", 0

    def put_large(self, chunks: Iterable[Chunk], size: int, go_on: GoOn | None = None, /) -> bytes:  # noqa: ARG002 - the protocol's
        """Drop a large value; its digest."""
        digest = blake3()
        for chunk in chunks:
            digest.update(chunk)
        return digest.digest()

    def begin_large(self) -> _Dropped:
        """Drop a large value piece by piece."""
        return _Dropped()

    def sync(self) -> None:
        """Do nothing."""

    @property
    def opened(self) -> Sequence[Descriptor]:
        """None."""
        return ()

    def close(self) -> None:
        """Do nothing."""


class _Dropped:
    def __init__(self) -> None:
        self._digest = blake3()

    def write_and_hash(self, chunks: Sequence[bytes], /) -> None:
        for chunk in chunks:
            self._digest.update(chunk)

    @property
    def digest(self) -> bytes:
        return self._digest.digest()

    def commit(self, digest: bytes, /) -> None:
        """Do nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing."""
