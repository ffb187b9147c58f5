"""Parts of a value's stored bytes, read when they are asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from asyncflow.values import ArtifactRef


class PartsReader(Protocol):
    """Reads parts of stored values."""

    def read_range(self, ref: ArtifactRef, offset: int, size: int, name: str = "", /) -> bytes:
        """So many of a value's bytes, from an offset on.

        Raises:
            ArtifactMissingError: The file that holds it is gone.
            ArtifactCorruptError: The file ends before.
        """


class StoredBytes(Protocol):
    """Bytes of which parts can be read."""

    @property
    def size(self) -> int:
        """How many there are."""

    def read(self, offset: int, size: int) -> bytes:
        """So many from an offset on; fewer at the end."""

    def part(self, offset: int, size: int) -> StoredBytes:
        """A part of them, unread."""


class Stored:
    """A stored value, or a part of it."""

    __slots__ = ("_begin", "_name", "_reader", "_ref", "size")

    def __init__(
        self,
        reader: PartsReader,
        ref: ArtifactRef,
        name: str,
        begin: int = 0,
        size: int | None = None,
    ) -> None:
        self._reader, self._ref, self._name, self._begin = reader, ref, name, begin
        self.size = ref.size - begin if size is None else size

    def read(self, offset: int, size: int) -> bytes:
        """So many from an offset on; fewer at the end."""
        size = min(size, self.size - offset)
        if offset < 0 or size <= 0:
            return b""
        return self._reader.read_range(self._ref, self._begin + offset, size, self._name)

    def part(self, offset: int, size: int) -> StoredBytes:
        """A part of them, unread."""
        size = max(min(size, self.size - offset), 0)
        return Stored(self._reader, self._ref, self._name, self._begin + offset, size)


class InMemory:
    """Bytes that are there."""

    __slots__ = ("_data",)

    def __init__(self, data: bytes | bytearray | memoryview) -> None:
        self._data = memoryview(data)  # not copied: thousands of parts may be of the same bytes

    @property
    def size(self) -> int:
        """How many there are."""
        return len(self._data)

    def read(self, offset: int, size: int) -> bytes:
        """So many from an offset on; fewer at the end."""
        return bytes(self._data[offset : offset + size]) if offset >= 0 and size > 0 else b""

    def part(self, offset: int, size: int) -> StoredBytes:
        """A part of them."""
        return InMemory(self._data[offset : offset + size])
