"""A foreach list in one go, for tests of what it is made of."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

from asyncflow.codec import Encoded, ItemsEncoder
from asyncflow.values import Encoding

if TYPE_CHECKING:
    from collections.abc import Iterable


def encode_items(items: Iterable[object], name: str = "") -> Encoded:
    """The list's bytes as they are written; `name` is for the error."""
    encoder = ItemsEncoder(type(items), name)
    chunks = list(chain.from_iterable(encoder.add_all(items)))
    chunks += encoder.finish()
    return Encoded(Encoding.ITEMS, [*chunks], encoder.size, encoder.type_name)
