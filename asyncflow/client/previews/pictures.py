"""Recognises pictures by their first bytes, and reads how large they are."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final

from asyncflow.client.previews.pickle_opcodes import PartOfText

if TYPE_CHECKING:
    from asyncflow.client.previews.limits import PreviewLimits
    from asyncflow.client.previews.pickle_opcodes import PickleTree

_BEGINNINGS: Final = (
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"\xff\xd8\xff", "jpeg"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
)
_JPEG_SIZES: Final = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_MOST_SEGMENTS: Final = 1_000


def image_format(data: bytes) -> str | None:
    """The format of a picture: `png`, `jpeg`, `gif` or `webp`; None for anything else."""
    for beginning, name in _BEGINNINGS:
        if data.startswith(beginning):
            return name
    return "webp" if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else None


def image_preview(tree: PickleTree, _: PreviewLimits) -> dict[str, Any] | None:
    """The preview of bytes that are a picture; None if they are none."""
    data = tree.value.text if isinstance(tree.value, PartOfText) else tree.value
    if not isinstance(data, bytes):
        return None
    name = image_format(data)
    if name is None:
        return None
    try:
        width, height = _size(name, data)
    except (struct.error, IndexError):
        width = height = None
    return {"kind": "image", "format": name, "width": width, "height": height}


def _size(name: str, data: bytes) -> tuple[int | None, int | None]:
    if name == "png":
        return struct.unpack_from(">II", data, 16)
    if name == "gif":
        return struct.unpack_from("<HH", data, 6)
    if name == "jpeg":
        return _jpeg_size(data)
    return None, None


def _jpeg_size(data: bytes) -> tuple[int | None, int | None]:
    at = 2
    for _ in range(_MOST_SEGMENTS):
        kind = data[at + 1]
        if kind in _JPEG_SIZES:
            height, width = struct.unpack_from(">HH", data, at + 5)
            return width, height
        (length,) = struct.unpack_from(">H", data, at + 2)
        at += 2 + max(length, 2)
    return None, None
