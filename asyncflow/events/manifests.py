"""Packs refs and manifests into bytes, and checks such bytes.

A manifest is a msgpack map from the names of artifacts to refs; a ref is an array of the fields of
an `ArtifactRef`. Bytes from a file are checked here once. After that, code that holds a ref can
rely on its numbers being numbers, and on its file lying in the flow's own folder.

A manifest with many names may say only what differs from an earlier one of the same journal: it is
then an array of that record's offset, a map of the names that are new or others, and an array of
the names that are gone. `asyncflow.store.manifests` reads the earlier one, and decides which to
name.
"""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

import msgpack

from asyncflow._quick_classes import NamedTuple
from asyncflow.errors import RecordError
from asyncflow.values import ArtifactRef, Encoding, Place

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from asyncflow.values import Manifest

MOST_IN_A_SEGMENT: Final = 16 << 20
"""The longest value in a segment is shorter: from 256 KiB on a value becomes a blob. So a value in
a segment may be read whole."""

_FIELDS: Final = len(ArtifactRef._fields)
_new_ref: Final = partial(tuple.__new__, ArtifactRef)  # half the time of `_make`
_TYPES: Final = (int, int, str, int, bytes, str, int, bytes)
_INLINE, _SEGMENT, _BLOB = int(Place.INLINE), int(Place.SEGMENT), int(Place.BLOB)
_LAST_ENCODING: Final = int(max(Encoding))
_DIGEST_BYTES: Final = 32
_MOST_BYTES: Final = 1 << 62  # no file is that long
_SEGMENT_FILE: Final = re.compile(r"[0-9]{1,20}/(?!\.)[^/\0]+")  # RUN/NAME, below the flow


NOT_MSGPACK: Final = (ValueError, TypeError, OverflowError, MemoryError)
"""What msgpack raises for bytes that are not msgpack, or that claim more than fits into memory."""


def unpack(data: bytes) -> Any:
    """Unpack plain values from msgpack.

    Raises:
        RecordError: The bytes are not msgpack, or claim to hold more than there is memory for.
    """
    try:
        return msgpack.unpackb(data, strict_map_key=False)
    except NOT_MSGPACK as error:
        message = f"it is not MessagePack: {str(error) or type(error).__name__}"
        raise RecordError(message) from error


def ref_of(fields: object) -> ArtifactRef:
    """The ref with these fields; fields that a later version has added are ignored.

    Raises:
        RecordError: These are not the fields of a ref.
    """
    known = fields[:_FIELDS] if type(fields) is list else ()
    if tuple(map(type, known)) != _TYPES:
        raise _no_ref(fields)
    ref = _new_ref(known)
    place, encoding, _, size, digest, file, offset, data = ref
    if place == _INLINE:
        fits = size == len(data)
    elif place == _SEGMENT:
        fits = 0 <= size < MOST_IN_A_SEGMENT and _SEGMENT_FILE.fullmatch(file) is not None
    else:
        fits = place == _BLOB and 0 <= size < _MOST_BYTES
    if place != _INLINE:
        fits = fits and len(digest) == _DIGEST_BYTES and 0 <= offset < _MOST_BYTES
    if not fits or not 0 <= encoding <= _LAST_ENCODING:
        raise _no_ref(fields)
    return ref


def _no_ref(fields: object) -> RecordError:
    return RecordError(f"it has an invalid ref to a value: {fields!r:.100}")


_pack: Final[Callable[..., Any]] = msgpack.Packer().pack
"""Used for all: `packb` makes a packer for each call, which takes half of its time."""


def pack_ref(ref: ArtifactRef) -> bytes:
    return cast("bytes", _pack(ref))


def unpack_ref(data: bytes) -> ArtifactRef:
    """Undo `pack_ref`.

    Raises:
        RecordError: These are not the bytes of a ref.
    """
    return ref_of(unpack(data))


def pack_manifest(manifest: Mapping[str, ArtifactRef]) -> bytes:
    """Pack refs by name, as an event carries them."""
    packed: bytes = _pack(manifest)
    return packed


class Told(NamedTuple):
    """What one manifest says by itself."""

    base: int
    """The journal offset of the record whose manifest it changes; 0 if it says everything."""
    refs: Mapping[str, Any]
    """The fields of the refs that it names: `ref_of` makes one of each."""
    gone: frozenset[str] = frozenset()
    """Names of the base that are no more."""

    @property
    def size(self) -> int:
        """How many names it has."""
        return len(self.refs) + len(self.gone)


def pack_changes(base: int, refs: Mapping[str, ArtifactRef], gone: Collection[str]) -> bytes:
    """Pack a manifest that says only what differs from that of the record at offset `base`."""
    return cast("bytes", _pack((base, refs, sorted(gone))))


def moved(told: Told, base: int) -> bytes:
    """The same changes, for a journal in which the base is at another offset."""
    return cast("bytes", _pack((base, told.refs, sorted(told.gone))))


_MAPS: Final = frozenset({*range(0x80, 0x90), 0xDE, 0xDF})  # msgpack's first byte of a map


def is_whole(manifest: bytes) -> bool:
    """Whether a manifest says everything, and not only what differs from an earlier one."""
    return manifest[0] in _MAPS if manifest else True


_CHANGES: Final = re.compile(
    rb"\x93(?:(?<=\xc4.\x93)|(?<=\xc5..\x93)|(?<=\xc6....\x93))", re.DOTALL
)
"""msgpack's first byte of an array of three, right behind the head of bytes."""


def changes_in(data: bytes) -> list[int]:
    """Where packed manifests that are not whole may begin in bytes of a journal.

    Each that begins there is among the places; other bytes may look alike.
    """
    return [found.start() for found in _CHANGES.finditer(data)]


def unpack_manifest(data: bytes) -> Manifest:
    """Undo `pack_manifest`.

    Raises:
        RecordError: These are not the bytes of a manifest that says everything.
    """
    base, refs, _ = unpack_told(data)
    if base:
        message = f"its manifest says only what differs from that of the record at byte {base}"
        raise RecordError(message)
    return {name: ref_of(ref) for name, ref in refs.items()}


def unpack_told(data: bytes) -> Told:
    """Unpack what a manifest says by itself, but not its refs.

    Raises:
        RecordError: These are not the bytes of a manifest.
    """
    raw = unpack(data)
    if type(raw) is dict and {str}.issuperset(map(type, raw)):
        return Told(0, raw)
    if type(raw) is list and tuple(map(type, raw)) == (int, dict, list):
        base, refs, gone = raw
        if 0 < base < _MOST_BYTES and {str}.issuperset(map(type, (*refs, *gone))):
            names = frozenset(gone)
            if names.isdisjoint(refs):
                return Told(base, refs, names)
    message = f"its manifest is neither a map from names to refs nor a change of one: {raw!r:.60}"
    raise RecordError(message)
