"""What a stored value is, told from its bytes without opening it.

Nothing here unpickles, imports what a value names, or looks a class up: the opcodes of a pickle are
read, and of what would be called only the name is kept. Arrays and tables are read from their
buffers. Time, memory and the bytes that are read are bounded, whatever the bytes hold.

`pickle_opcodes` makes a tree of what the opcodes say, `value_text` writes that as text, and
`arrays` and `tables` know how NumPy, pandas and Arrow pickle their data.
"""

from __future__ import annotations

import time
from typing import Any, Final

from asyncflow.client.previews.arrays import array_preview
from asyncflow.client.previews.limits import PreviewLimits
from asyncflow.client.previews.pickle_opcodes import PartOfText, PickleTree, read_pickle
from asyncflow.client.previews.pictures import image_format, image_preview
from asyncflow.client.previews.stored_bytes import PartsReader, Stored, StoredBytes
from asyncflow.client.previews.tables import table_preview
from asyncflow.client.previews.value_text import kind_name, length_of, text_of
from asyncflow.codec.items import ENTRY_BYTES, TRAILER_BYTES, DamagedError, Entry, Trailer
from asyncflow.errors import AsyncflowError
from asyncflow.values import ArtifactRef, Encoding

__all__ = ["PreviewLimits", "image_format", "preview_of"]

_MOST_ITEMS_READ: Final = 20


def preview_of(
    reader: PartsReader, ref: ArtifactRef, name: str, limits: PreviewLimits
) -> tuple[dict[str, Any], float]:
    """The preview of a stored value as plain data, and how many seconds it took.

    It never fails: what cannot be shown is told in words. `name` is the artifact's pathspec.
    """
    began = time.monotonic()
    try:
        found = _preview(Stored(reader, ref, name), ref, limits.begun())
    except (AsyncflowError, OSError) as error:
        found = unknown(f"it cannot be read: {error}")
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, RecursionError) as error:
        found = unknown(f"its bytes are of a kind that is not known here: {error}"[:300])
    return found, time.monotonic() - began


def unknown(why: str) -> dict[str, Any]:
    """The preview of what cannot be shown."""
    return {"kind": "unknown", "text": why}


def _preview(stored: StoredBytes, ref: ArtifactRef, limits: PreviewLimits) -> dict[str, Any]:
    if ref.encoding == Encoding.ITEMS:
        return _items_preview(stored, ref, limits)
    if ref.encoding == Encoding.BYTES:
        return _bytes_preview(stored, ref.size, limits)
    if ref.encoding not in {Encoding.PICKLE, Encoding.BUFFERS}:
        return unknown(f"it is stored in a form {ref.encoding} that is not known here")
    tree = read_pickle(stored, ref.encoding == Encoding.BUFFERS, limits)
    for special in (image_preview, table_preview, array_preview):
        found = special(tree, limits)
        if found is not None:
            return found
    return value_preview(tree, ref.type_name, limits)


def value_preview(tree: PickleTree, type_name: str, limits: PreviewLimits) -> dict[str, Any]:
    """A value as Python would show it."""
    text, is_cut = text_of(tree.value, limits)
    return {
        "kind": "value",
        "type": kind_name(tree.value) or type_name,
        "text": text,
        "length": _length(tree),
        "cut": is_cut or tree.is_cut,
    }


def _length(tree: PickleTree) -> int | None:
    return length_of(tree.value) if isinstance(tree.value, PartOfText) or not tree.is_cut else None


def _bytes_preview(stored: StoredBytes, size: int, limits: PreviewLimits) -> dict[str, Any]:
    head = stored.read(0, min(size, limits.bytes_read))
    picture = image_preview(PickleTree(head, is_cut=False), limits)
    if picture is not None:
        return picture
    shown = head[: limits.characters // 4]
    return {
        "kind": "value",
        "type": "bytes",
        "text": repr(shown) + ("…" if len(shown) < size else ""),
        "length": size,
        "cut": len(shown) < size,
    }


# --- what a foreach runs over -------------------------------------------------------------------


def _items_preview(stored: StoredBytes, ref: ArtifactRef, limits: PreviewLimits) -> dict[str, Any]:
    try:
        trailer = _trailer(stored, ref.size)
        count = min(trailer.length, limits.items, _MOST_ITEMS_READ)
        texts = [_item_text(stored, trailer, index, limits) for index in range(count)]
    except DamagedError as error:
        return unknown(f"its bytes are not those of a list: {error}")
    opening, closing = "[]" if trailer.kind is list else "()"
    more = trailer.length > len(texts)
    text = opening + ", ".join(texts) + (", …" if more and texts else "…" if more else "") + closing
    return {
        "kind": "items",
        "type": trailer.kind.__name__,
        "text": text[: limits.characters],
        "length": trailer.length,
        "cut": more or len(text) > limits.characters,
    }


def _trailer(stored: StoredBytes, size: int) -> Trailer:
    return Trailer.parse(stored.read(max(size - TRAILER_BYTES, 0), TRAILER_BYTES), size)


def _item_text(stored: StoredBytes, trailer: Trailer, index: int, limits: PreviewLimits) -> str:
    entry = Entry.parse(stored.read(trailer.entry(index), ENTRY_BYTES), trailer.code)
    part = stored.part(entry.offset, entry.size)
    if entry.encoding == Encoding.BYTES:
        return str(_bytes_preview(part, entry.size, limits)["text"])
    tree = read_pickle(part, entry.encoding == Encoding.BUFFERS, limits)
    return text_of(tree.value, limits)[0]
