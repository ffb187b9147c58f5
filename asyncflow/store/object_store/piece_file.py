"""Reads a file that is stored as pieces, and appends to it; `pieces` has their form."""

from __future__ import annotations

import time
from collections import OrderedDict
from threading import Lock
from typing import TYPE_CHECKING, Final

from asyncflow.errors import JournalError, RecordError
from asyncflow.store.object_store.pieces import HEADER_BYTES, MOST_BYTES, Chain, Piece, name_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncflow.codec import Chunk
    from asyncflow.store.object_store.objects import Objects

_KEPT_BYTES: Final = 16 << 20  # of pieces that were read last, in each reader
_AHEAD_BYTES: Final = 4 << 20  # are asked for together when somebody reads on and on
_MOST_AHEAD: Final = 16  # pieces, likewise
_LOOK_SECONDS: Final = 0.25
"""The least time between two looks for pieces that were added: as often as a writer adds one."""
_ASKED_ONE_BY_ONE: Final = 2  # new pieces; for more, a listing is faster


class PieceFile:
    """A file of pieces, open for reading; threads may share one.

    It sees what was there when it was last refreshed.
    """

    def __init__(self, objects: Objects, folder: str) -> None:
        """Make no request; `folder` has the pieces."""
        self._objects, self.folder = objects, folder
        self._chain = Chain()
        self._looked_at = float("-inf")
        self._kept: OrderedDict[int, bytes] = OrderedDict()
        self._kept_bytes = 0
        self._last = -1
        self._ahead = 1
        self._lock = Lock()

    def __repr__(self) -> str:
        return f"<PieceFile {self.folder} {self._chain!r}>"

    @property
    def is_sealed(self) -> bool:
        """Whether nothing can be appended any more."""
        return self._chain.is_sealed

    @property
    def size(self) -> int:
        """Its length in bytes, as it was when it was last refreshed."""
        return self._chain.end

    def refresh(self, *, now: bool = False) -> bool:
        """Look for pieces that were added; whether there are some.

        Does nothing if it has looked a moment ago, unless it must be `now`.
        """
        with self._lock:
            clock = time.monotonic()
            if self._chain.is_sealed or (clock < self._looked_at + _LOOK_SECONDS and not now):
                return False
            before = self._chain.end
            if len(self._chain):
                self._ask_for_next()
            else:
                self._list()
            self._looked_at = clock
            return self._chain.end > before or self._chain.is_sealed

    def _ask_for_next(self) -> None:
        """Ask for the piece at the end, which is cheaper than a listing if there is none."""
        for _ in range(_ASKED_ONE_BY_ONE):
            try:
                piece = self._get(self._chain.end)
            except FileNotFoundError:
                return
            number = len(self._chain)
            self._chain.add(piece.offset, len(piece.data))
            if piece.is_seal:
                return
            self._keep(number, piece.data)
        self._list()

    def _list(self) -> None:
        chain = self._chain
        after = name_of(chain.bounds(len(chain) - 1)[0]) if len(chain) else ""
        listed = self._objects.listed(self.folder, after=after and f"{self.folder}/{after}")
        chain.add_listed((facts.name, facts.size) for facts in listed)

    def last_writer(self) -> bytes:
        """The writer of its last bytes; there must be some.

        Raises:
            JournalError: The piece is not what was written.
            FileNotFoundError: It is gone.
        """
        return self._get(self._chain.bounds(len(self._chain) - 1)[0]).writer

    def read(self, size: int, offset: int) -> bytes:
        """So many bytes from an offset on; fewer if the file ends before.

        Raises:
            JournalError: A piece is not what was written.
            FileNotFoundError: A piece is gone.
        """
        with self._lock:
            covering = [*self._chain.covering(offset, size)]
            parts = [self._piece(number)[start:stop] for number, start, stop in covering]
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _piece(self, number: int) -> bytes:
        data = self._kept.get(number)
        if data is None:
            self._fetch(number)
            data = self._kept[number]
        self._kept.move_to_end(number)
        self._ahead = min(2 * self._ahead, _MOST_AHEAD) if number == self._last + 1 else 1
        self._last = number
        return data

    def _fetch(self, number: int) -> None:
        """Get a piece, and the next ones with it if somebody reads them in order."""
        numbers = [number]
        begin = self._chain.bounds(number)[0]
        for following in range(number + 1, min(number + self._ahead, len(self._chain))):
            if following in self._kept or self._chain.bounds(following)[1] > begin + _AHEAD_BYTES:
                break
            numbers.append(following)
        starts = [self._chain.bounds(each)[0] for each in numbers]
        got: list[Piece] = self._objects.each(self._get, starts)
        for each, piece in zip(numbers, got, strict=True):
            begin, end = self._chain.bounds(each)
            if piece.end != end:
                raise self._damaged(begin, "it has another length than a moment ago")
            self._keep(each, piece.data)

    def _keep(self, number: int, data: bytes) -> None:
        self._kept[number] = data
        self._kept_bytes += len(data)
        while self._kept_bytes > _KEPT_BYTES and len(self._kept) > 1:
            _, dropped = self._kept.popitem(last=False)
            self._kept_bytes -= len(dropped)

    def _get(self, offset: int) -> Piece:
        # No more than a piece may have: somebody else's object there could be of any length.
        name = f"{self.folder}/{name_of(offset)}"
        packed = self._objects.get_range(name, 0, HEADER_BYTES + MOST_BYTES)
        try:
            return Piece.parse(packed, offset)
        except RecordError as error:
            raise self._damaged(offset, str(error)) from error

    def _damaged(self, offset: int, what: str) -> JournalError:
        place = f"{self._objects.location}/{self.folder}/{name_of(offset)}"
        return JournalError(f"{place} is damaged: {what}")


def append_piece(objects: Objects, folder: str, piece: Piece) -> Piece:
    """Create a piece at its offset; return the piece that is there now.

    That is another one if somebody else was first, or an earlier program of the same writer.

    Raises:
        JournalError: Something is there that is no piece.
    """
    return append_packed(objects, folder, piece.offset, piece.pack()) or piece


def append_packed(
    objects: Objects, folder: str, offset: int, packed: bytes | Sequence[Chunk]
) -> Piece | None:
    """Create the piece with these bytes at its offset; return the one that was there before.

    None if there was none.

    Raises:
        JournalError: Something is there that is no piece.
    """
    name = f"{folder}/{name_of(offset)}"
    there = objects.create(name, packed)
    if there is None:
        return None
    try:
        return Piece.parse(there, offset)
    except RecordError as error:
        message = f"{objects.location}/{name} is damaged: {error}"
        raise JournalError(message) from error


def seal(objects: Objects, folder: str, writer: bytes) -> int:
    """End a file where it ends now, so that nobody can append to it; return its length.

    Raises:
        JournalError: Something else than a piece is in the way.
    """
    file = PieceFile(objects, folder)
    file.refresh(now=True)
    while not file.is_sealed:
        append_piece(objects, folder, Piece(file.size, writer, b""))
        file.refresh(now=True)
    return file.size
