"""Turns Python values into stored bytes, and back. It does no I/O and knows no storage places.

`encoded` encodes one value, `items` a foreach list. `classes` makes the classes of the flow's own
file readable in any process. `pickles` has the picklers, and `unpicklable` finds the member that
cannot be pickled. The modules describe their formats byte by byte.
"""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from blake3 import blake3

from asyncflow.codec.classes import by_value_modules, complete_code, pickle_by_value
from asyncflow.codec.encoded import (
    Encoded,
    are_small,
    batches,
    decode_value,
    encode_value,
    is_plain_time,
    text_stream,
)
from asyncflow.codec.items import ItemsEncoder, decode_items
from asyncflow.codec.pickles import Chunk, type_name
from asyncflow.values import Encoding

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "Chunk",
    "Encoded",
    "ItemsEncoder",
    "are_small",
    "batches",
    "by_value_modules",
    "complete_code",
    "decode",
    "digest",
    "digest_of",
    "encode",
    "is_plain_time",
    "pickle_by_value",
    "text_stream",
    "type_name",
]

_THREADS_PAY_BYTES: Final = 4 << 20  # starting two threads costs about what they save at 1 MiB
_MOST_THREADS: Final = 4  # from there on memory speed is the limit


def encode(value: Any, *, name: str = "") -> Encoded:
    """Encode a value as the bytes to store; the error names the artifact by `name`.

    Raises:
        ArtifactPickleError: The value cannot be pickled; the message names the member at fault.
    """
    return encode_value(value, name)


def decode(encoding: int, data: Chunk) -> Any:
    """Decode a value from its stored bytes.

    With `Encoding.BUFFERS` and `Encoding.ITEMS` the value uses `data` as its memory, and can be
    changed in place if `data` is writable.

    Raises:
        ValueError: These are not the bytes of a value in this encoding.
        Exception: Whatever unpickling raises.
    """
    if encoding == Encoding.ITEMS:
        return decode_items(memoryview(data))
    return decode_value(encoding, data)


def digest(*chunks: Chunk) -> bytes:
    """The blake3 digest of the concatenated chunks, 32 bytes."""
    return digest_of(chunks, sum(map(len, chunks)))


def digest_of(chunks: Sequence[Chunk], size: int) -> bytes:
    """The same as `digest`, for chunks whose total length is known."""
    if size < _THREADS_PAY_BYTES:
        hasher = blake3(chunks[0]) if chunks else blake3()
        rest = chunks[1:]
    else:
        # Not blake3.AUTO: its threads remain, and a child that the step forks would wait for them
        # for ever. These threads end with the hasher.
        hasher, rest = blake3(max_threads=_threads()), chunks
    for chunk in rest:
        hasher.update(chunk)
    return hasher.digest()


@cache
def _threads() -> int:
    try:
        return min(_MOST_THREADS, len(os.sched_getaffinity(0)))
    except AttributeError:  # not on macOS
        return min(_MOST_THREADS, os.cpu_count() or 1)
