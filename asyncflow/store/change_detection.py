"""Tells whether a value that a step has read is still the same at the step's end.

The encodings of the value are compared: the one right after it was read, before the step saw it,
and the one at the end. The stored bytes cannot replace the first. A set is ordered by the hashes of
a process, equal texts may have become one object, and a class that keeps one object per key returns
an object of the process, whatever was stored. Nothing is unpickled to compare.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from asyncflow._quick_classes import NamedTuple
from asyncflow.codec import digest_of, encode, is_plain_time
from asyncflow.errors import ArtifactPickleError
from asyncflow.store.mapped_files import address_of, is_written

if TYPE_CHECKING:
    from asyncflow.codec import Chunk, Encoded
    from asyncflow.values import ArtifactRef

_IMMUTABLE: Final = frozenset({bool, bytes, complex, float, int, str, type(None), type(...), range})


_KEPT_STEADY: Final = 4096  # some 300 KB, in a worker that has read that many

_steady: Final[set[bytes]] = set()
"""The hashes of stored values that encode to the stored bytes again, as this process has seen.

Only values whose pickle names no class. Others may be read as an object of the process, and encode
as that object's present state.
"""


def is_immutable(value: Any) -> bool:
    """Whether nobody can change this value in place: plain atoms, and tuples of them."""
    kind = type(value)
    if kind in _IMMUTABLE or is_plain_time(value):
        return True
    return kind in {tuple, frozenset} and all(map(is_immutable, value))


class _Fingerprint(NamedTuple):
    """Compares encodings without keeping them."""

    digest: bytes
    """blake3 of the bytes, without buffers that lie in a mapped file."""
    places: list[tuple[int, int]]
    """The offsets of those buffers in the file, and their lengths."""


class Loaded:
    """A value that was read from the store, and what is needed to notice a change of it."""

    __slots__ = ("_before", "_mapping", "_may_change", "ref", "value")

    def __init__(self, value: Any, ref: ArtifactRef, mapping: memoryview | None) -> None:
        self.value: Any = value
        self.ref: Final = ref
        # Kept, because otherwise another mapping could get the same address and be mistaken for it.
        self._mapping = mapping
        self._may_change = True
        self._before: _Fingerprint | None = None

    def __repr__(self) -> str:
        return f"<Loaded {self.ref.type_name}, {self.ref.size} bytes>"

    def note(self) -> None:
        """Note how the value encodes, before any code may change it."""
        self._may_change = not is_immutable(self.value)
        if not self._may_change:
            return
        if self._mapping is not None and _is_touched(self._mapping):
            # It was written to while it was unpickled, or that cannot be known: compare its bytes.
            self._mapping = None
        if self.ref.digest in _steady:
            self._before = _Fingerprint(self.ref.digest, [])
            return
        try:
            encoded = encode(self.value)
        except ArtifactPickleError:
            return  # it can be read, but not pickled
        self._before = self._fingerprint(encoded)
        if encoded.is_plain and self._before.digest == self.ref.digest:
            if len(_steady) >= _KEPT_STEADY:
                _steady.clear()
            _steady.add(self.ref.digest)

    @property
    def is_comparable(self) -> bool:
        """Whether the value could be pickled when it was read, so that a change can be noticed."""
        return self._before is not None or not self._may_change

    def changed(self, name: str = "") -> Encoded | None:
        """The new encoding, if the value does not encode as it did at `note`; else None.

        A change is never missed. A mapped array is not read for this: the kernel knows whether it
        was written to.

        Raises:
            ArtifactPickleError: The value cannot be pickled; see `is_comparable`.
        """
        if not self._may_change:
            return None
        encoded = encode(self.value, name=name)
        if self._fingerprint(encoded) != self._before:
            return encoded
        return encoded if self._mapping is not None and _is_touched(self._mapping) else None

    def _fingerprint(self, encoded: Encoded) -> _Fingerprint:
        if self._mapping is None:
            return _Fingerprint(digest_of(encoded.chunks, encoded.size), [])
        first = address_of(self._mapping)
        end = first + len(self._mapping)
        copied: list[Chunk] = []
        places = []
        for chunk in encoded.chunks:
            at = address_of(chunk) if isinstance(chunk, memoryview) else 0
            if first <= at < end:
                places.append((at - first, len(chunk)))
            else:
                copied.append(chunk)
        return _Fingerprint(digest_of(copied, sum(map(len, copied))), places)


def _is_touched(mapping: memoryview) -> bool:
    return is_written(address_of(mapping), len(mapping)) is not False
