"""A part of a foreach list that is read at once: a worker's next tasks have the next items."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from asyncflow._quick_classes import NamedTuple
from asyncflow.codec.items import ENTRY_BYTES, MOST_TEXT_BYTES, DamagedError, Entry, text_in
from asyncflow.values import Encoding

if TYPE_CHECKING:
    from asyncflow.codec.items import Trailer

MOST_ITEMS: Final = 64
"""So many entries of the table are read at once."""
MOST_BYTES: Final = 8192
"""So many bytes of items and their texts are read at once."""
_MOST_ITEM_BYTES: Final = MOST_BYTES // 8
# Values in other encodings may use the stored bytes as their memory.
_COPIED: Final = frozenset({int(Encoding.PICKLE), int(Encoding.BYTES)})


class FoundItem(NamedTuple):
    """A small item as it was read; whoever uses the bytes checks them."""

    entry: Entry
    data: bytes
    text: str
    """Its short text; empty in lists of earlier versions."""


_new_item: Final = partial(tuple.__new__, FoundItem)  # half the time of a call of the class


class NearItems(NamedTuple):
    """Entries of a list that follow one another, and the bytes of some of their items."""

    digest: bytes
    """That of the list."""
    first: int
    """The index of the first item whose entry is there."""
    table: bytes
    """The entries."""
    found: dict[int, FoundItem]
    """Items by their index. The first that is looked for is found alone: who reads items here and
    there needs no other. With the second one all are found, which takes a fifth of the time."""
    start: int = 0
    """Where in the list `data` begins."""
    data: bytes = b""

    def entry(self, index: int, trailer: Trailer) -> Entry | None:
        """The entry of an item, if it is there.

        Raises:
            DamagedError: It cannot be one.
        """
        at = (index - self.first) * ENTRY_BYTES
        return Entry.parse(self.table, trailer.code, at) if 0 <= at < len(self.table) else None

    def has_data(self, entry: Entry, trailer: Trailer) -> bool:
        """Whether the bytes of an item and its text are there."""
        at = entry.offset - self.start
        room = len(self.data) - at - entry.size
        return at >= 0 and room >= trailer.text_place(entry)[1]

    def find(self, index: int, entry: Entry, trailer: Trailer) -> FoundItem:
        """An item whose bytes are there."""
        if self.found and trailer.has_texts:
            self._find_all(trailer)
        found = self.found.get(index)
        if found is None:
            at = entry.offset - self.start
            end = at + entry.size
            text = self.data[end : end + 1 + MOST_TEXT_BYTES] if trailer.has_texts else b""
            found = self.found[index] = FoundItem(entry, self.data[at:end], text_in(text))
        return found

    def _find_all(self, trailer: Trailer) -> None:
        try:
            entries = Entry.parse_all(self.table, trailer.code)
        except DamagedError:
            return  # told when the damaged entry is looked for
        data, start, known = self.data, self.start, len(self.data)
        for index, entry in enumerate(entries, self.first):
            at = entry.offset - start
            end = at + entry.size
            if at >= 0 and end < known and is_near(entry):
                behind = end + 1 + data[end]
                if behind <= known:
                    text = data[end + 1 : behind].decode("utf-8", "replace")
                    self.found[index] = _new_item((entry, data[at:end], text))


def is_near(entry: Entry) -> bool:
    """Whether an item is so small that its neighbours are read with it."""
    return entry.size <= _MOST_ITEM_BYTES and entry.encoding in _COPIED
