"""A run on its way into an object store: implements `store.incoming_interface.IncomingRun`.

Its objects are written where they belong. A journal is the chain of its pieces from the first one
on, so the first one is written last: that is the commit. The summary follows it. What the pieces
are made of depends on the run alone, so that a second attempt, or one at the same time, writes the
same ones.
"""

from __future__ import annotations

import os
import re
import tempfile
import time
from typing import IO, TYPE_CHECKING, Final, Self

from blake3 import blake3

from asyncflow.errors import ArtifactCorruptError, StoreError
from asyncflow.store.blobs import TOUCH_SECONDS
from asyncflow.store.files import explain_write
from asyncflow.store.object_store.piece_file import PieceFile, append_piece
from asyncflow.store.object_store.pieces import MOST_BYTES, WRITER_BYTES, Piece, name_of
from asyncflow.store.object_store.sent_journal import JOURNAL
from asyncflow.store.object_store.value_source import blob_name
from asyncflow.store.run_ids import NEWEST
from asyncflow.store.run_index import SUMMARY
from asyncflow.store.seen_blobs import SeenBlobs

if TYPE_CHECKING:
    from collections.abc import Iterable

    from asyncflow.codec import Chunk
    from asyncflow.store.object_store.connection import Connection

_COPIED_BYTES: Final = 5 << 30  # the most that S3 copies by one request
_DIGITS: Final = re.compile(rb"([1-9][0-9]{0,18})\b")


class IncomingObjectRun:
    """A run that is being copied into an object store."""

    def __init__(self, connection: Connection, flow: str, run_id: str, folder: str) -> None:
        """Make no request; the run's objects are below `folder`."""
        self._connection, self._objects = connection, connection.objects
        self._flow, self._run_id, self._folder = flow, run_id, folder
        self._place: Final = f"{connection.location}/{folder}"
        self._first: Piece | None = None
        self._last: dict[str, bytes] = {}  # files that are written after the commit
        self._segments: dict[str, PieceFile] = {}
        self._seen = SeenBlobs()

    def __repr__(self) -> str:
        return f"<IncomingObjectRun {self._place}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Nothing is locked: whoever copies the same run at the same time writes the same."""

    # --- values ---------------------------------------------------------------------------------

    def has_large(self, digest: bytes, size: int) -> bool:
        """Whether the store has this blob, and no garbage collection deletes it soon."""
        try:
            facts = self._objects.head(blob_name(digest))
        except FileNotFoundError:
            return False
        if facts.size != size:
            return False
        if time.time() - facts.modified > TOUCH_SECONDS and not self._renew(digest, size):
            return False
        self._seen.note(digest, size)
        return True

    def _renew(self, digest: bytes, size: int) -> bool:
        """Give a blob a new time, which tells a collection that somebody has put it again."""
        if size > _COPIED_BYTES:
            return False
        name, aside = blob_name(digest), f"blobs/new/{os.urandom(12).hex()}"
        try:
            self._objects.copy(name, aside)  # S3 copies nothing onto itself
            self._objects.copy(aside, name)
        except FileNotFoundError:
            return False
        finally:
            self._objects.delete([aside])
        return True

    def put_large(self, digest: bytes, size: int, chunks: Iterable[Chunk]) -> None:
        """Store a blob.

        Raises:
            ArtifactCorruptError: The chunks have another hash.
            StoreError: It cannot be written.
        """
        parts = [memoryview(chunk) for chunk in chunks]
        data = parts[0] if len(parts) == 1 else memoryview(b"".join(parts))
        if (found := blake3(data).digest()) != digest:
            raise ArtifactCorruptError(
                f"the value {digest.hex()} was to be copied, and its bytes are those of "
                f"{found.hex()}"
            )
        try:
            self._objects.put(blob_name(digest), data)
        except OSError as error:
            raise StoreError(explain_write(f"the store {self._place}", error)) from error
        self._seen.note(digest, size)

    def put_segment(self, name: str, size: int, chunks: Iterable[Chunk]) -> None:
        """Write the pieces of a segment that are not there from an earlier attempt.

        Raises:
            StoreError: They cannot be written, or somebody else has written others.
        """
        folder = f"{self._folder}/{name}"
        file = PieceFile(self._objects, folder)
        try:
            file.refresh(now=True)
            at, there = 0, file.size
            for chunk in chunks:
                end = at + len(chunk)
                if there < size and end > there:
                    data = bytes(memoryview(chunk)[max(0, there - at) :])
                    self._write_piece(folder, Piece(end - len(data), self._writer(name), data))
                at = end
            file = PieceFile(self._objects, folder)
            file.refresh(now=True)
        except OSError as error:
            raise StoreError(explain_write(f"{self._place}/{name}", error)) from error
        self._segments[name] = file

    def read_segment(self, name: str, offset: int, size: int) -> bytes:
        """So many bytes of a segment.

        Raises:
            FileNotFoundError: It was not stored.
        """
        if name not in self._segments:
            raise FileNotFoundError(f"{self._place}/{name}")
        return self._segments[name].read(size, offset)

    def delete_segment(self, name: str) -> None:
        """Delete the pieces of a segment.

        Raises:
            StoreError: They cannot be deleted.
        """
        try:
            listed = self._objects.listed(f"{self._folder}/{name}")
            self._objects.delete([facts.name for facts in listed])
        except OSError as error:
            raise StoreError(explain_write(f"{self._place}/{name}", error)) from error
        self._segments.pop(name, None)

    # --- other files ----------------------------------------------------------------------------

    def put_journal(self, chunks: Iterable[bytes]) -> None:
        """Write the pieces of the journal, the last one first, and keep the first one back.

        Raises:
            StoreError: They cannot be written.
        """
        scratch = os.fspath(self._connection.local.root)
        try:
            with tempfile.TemporaryFile(dir=scratch) as spool:
                for chunk in chunks:
                    spool.write(chunk)
                self._send(spool)
        except OSError as error:
            raise StoreError(explain_write(f"{self._place}/{JOURNAL}", error)) from error

    def _send(self, spool: IO[bytes]) -> None:
        folder, writer = f"{self._folder}/{JOURNAL}", self._writer(JOURNAL)
        end = spool.seek(0, os.SEEK_END)
        self._write_piece(folder, Piece(end, writer, b""))
        for at in reversed(range(0, end, MOST_BYTES)):
            spool.seek(at)
            piece = Piece(at, writer, spool.read(MOST_BYTES))
            if at:
                self._write_piece(folder, piece)
            else:
                self._first = piece

    def _write_piece(self, folder: str, piece: Piece) -> None:
        there = append_piece(self._objects, folder, piece)
        if there.data != piece.data:
            # Nobody reads it: the first piece of the journal is not there yet.
            self._objects.delete([f"{folder}/{name_of(piece.offset)}"])
            there = append_piece(self._objects, folder, piece)
        if there.data != piece.data:
            raise StoreError(f"somebody else is writing {self._place}: copy again")

    def put_file(self, name: str, data: bytes) -> None:
        """Write a file, or keep it until the commit.

        Raises:
            StoreError: It cannot be written.
        """
        if name == SUMMARY:
            self._last[name] = data
            return
        try:
            self._objects.put(f"{self._folder}/{name}", data)
        except OSError as error:
            raise StoreError(explain_write(f"{self._place}/{name}", error)) from error

    def _writer(self, name: str) -> bytes:
        return blake3(f"copy\n{self._folder}\n{name}".encode()).digest()[:WRITER_BYTES]

    # --- the commit -----------------------------------------------------------------------------

    def commit(self) -> None:
        """Write the journal's first piece, then the summary.

        Raises:
            StoreError: There is a run with this id by now, or it cannot be written.
        """
        self._seen.check(self.has_large)
        try:
            if self._first is not None:
                there = append_piece(self._objects, f"{self._folder}/{JOURNAL}", self._first)
                if there.data != self._first.data:
                    raise StoreError(f"there is another run at {self._place} by now")
            for name, data in self._last.items():
                self._objects.put(f"{self._folder}/{name}", data)
            self._note_run()
        except OSError as error:
            raise StoreError(explain_write(self._place, error, doing="copy to")) from error

    def _note_run(self) -> None:
        """Have new runs get ids above that of this one."""
        name = f"{NEWEST}/{self._flow}"
        while True:
            try:
                data, facts = self._objects.get_with_facts(name)
            except FileNotFoundError:
                return  # then all runs are looked at
            found = _DIGITS.match(data)
            if found is None or int(found[1]) >= int(self._run_id):
                return
            line = b"%d %s\n" % (int(self._run_id), os.urandom(8).hex().encode())
            if self._objects.replace(name, line, facts.e_tag) is not None:
                return
