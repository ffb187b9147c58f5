"""A run in an object store; see `asyncflow.store.interface.StoredRun` for what its methods promise.

Everything of it is below `flows/FLOW/RUN/`: `journal/…` in pieces, segments in pieces, and files
that are an object each. A folder of the node's cache has what this machine writes, and copies.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from asyncflow.errors import JournalError, StoreError
from asyncflow.store.files import explain_write
from asyncflow.store.journal import JournalReader
from asyncflow.store.object_store import values
from asyncflow.store.object_store.claim import CLAIM, Claim, look_at
from asyncflow.store.object_store.piece_file import PieceFile, seal
from asyncflow.store.object_store.pieces import WRITER_BYTES
from asyncflow.store.object_store.sent_journal import (
    JOURNAL,
    PieceJournal,
    PieceSender,
    SentJournal,
    Unsent,
    is_sent,
    note_unsent,
    unsent_in,
)
from asyncflow.store.object_store.unsent import send_rest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from asyncflow.store.interface import OpenJournal, RunStore
    from asyncflow.store.object_store.connection import Connection
    from asyncflow.store.value_interface import Tell, ValueSink

_LOCAL_FILES: Final = "inputs-"
"""The prefix of files that only workers of the driver's machine read: they go with the orders to
others."""
_SUMMARY: Final = "summary"
_TRUSTED_SECONDS: Final = 2.0  # after that a claim is looked at again, by whoever follows a run


class ObjectRun:
    """A run in an object store."""

    def __init__(
        self,
        store: RunStore,
        connection: Connection,
        flow: str,
        run_id: str,
        *,
        removed: bool = False,
    ) -> None:
        """Make no request.

        Raises:
            NotFoundError: A flow or a run cannot have that name.
        """
        self.store: Final = store
        self._connection, self._objects = connection, connection.objects
        self.flow: Final = flow
        self.run_id: Final = run_id
        folder = connection.local.removed_dir if removed else connection.local.run_dir
        self._local = connection.local.run(flow, run_id, removed=removed)
        self.folder: Final = os.fspath(folder(flow, run_id).relative_to(connection.local.root))
        """Its objects are below this name."""
        self.place: Final = f"{connection.location}/{self.folder}"
        self.journal_place: Final = f"{self.place}/{JOURNAL}"
        self._removed = removed
        self._appender: SentJournal | None = None
        self._alive_until = 0.0
        self._pieces = PieceFile(connection.objects, f"{self.folder}/{JOURNAL}")

    def __repr__(self) -> str:
        return f"<ObjectRun {self.place}>"

    @property
    def pathspec(self) -> str:
        """`Flow/run`."""
        return f"{self.flow}/{self.run_id}"

    @property
    def journal_file(self) -> str:
        """The `file` of a ref to bytes within the journal."""
        return f"{self.run_id}/{JOURNAL}"

    def is_there(self) -> bool:
        """Whether the store, or this machine, has anything of it."""
        return self._local.is_being_written() or self._objects.has_any(self.folder)

    def is_being_written(self) -> bool:
        """Whether its writer is alive: by its lock on this machine, else by its claim."""
        if self._local.is_being_written():
            return True
        if time.monotonic() < self._alive_until:
            return True
        self._pieces.refresh()
        if self._pieces.is_sealed:
            return False
        seen = look_at(self._objects, self._name(CLAIM))
        if seen is not None and seen.is_fresh:
            try:
                here = unsent_in(self._local.place)
            except JournalError:
                here = None
            if here is None or here.writer.hex() != seen.writer:  # else it was here, and is dead
                self._alive_until = time.monotonic() + _TRUSTED_SECONDS
                return True
        self._pieces.refresh(now=True)  # the writer's last words
        return False

    def is_over(self) -> bool:
        """Whether nobody can append to the journal any more: it is sealed, or has a summary."""
        self._pieces.refresh(now=True)
        return self._pieces.is_sealed or self.has_file(_SUMMARY)

    # --- the journal ----------------------------------------------------------------------------

    def begin_journal(self, *, durable: bool = False) -> SentJournal:
        """Create the journal in the cache, and send it from now on.

        Raises:
            JournalError: It exists already, or cannot be created.
        """
        connection = self._connection
        local = self._local.begin_journal()
        writer = os.urandom(WRITER_BYTES)
        try:
            note_unsent(self._local.place, Unsent(writer, has_begun=False))
            sender = PieceSender(
                connection.objects, self._pieces.folder, writer, self._local.journal_place, 0
            )
            claim = Claim(connection.objects, self._name(CLAIM), writer)
            self._appender = SentJournal(local, sender, claim, connection.shipper, durable=durable)
        except OSError as error:
            local.close()
            what = f"the journal {self._local.journal_place}"
            raise JournalError(explain_write(what, error, doing="begin")) from error
        return self._appender

    def open_journal(self) -> OpenJournal:
        """Open the journal for reading: the file on this machine, if it has all there is.

        Raises:
            FileNotFoundError: It does not exist.
            JournalError: This version cannot read it.
        """
        if self._has_newest():
            with suppress(FileNotFoundError):  # it has just been deleted to make room
                return JournalReader(self._local.journal_place)
        self._pieces.refresh()
        return PieceJournal(self._pieces, self.journal_place)

    def _has_newest(self) -> bool:
        """Whether the file on this machine is the journal, as far as it goes."""
        local, pieces = self._local, self._pieces
        if not local.has_journal():
            return False
        if local.is_being_written():
            return True
        pieces.refresh()
        if is_sent(local.place):  # unless somebody has removed the run since
            return pieces.size == local.journal_size()
        unsent = unsent_in(local.place)
        if unsent is None or (pieces.is_sealed and pieces.size < local.journal_size()):
            return False
        # Its writer is dead. Others may have removed the run, or have begun it before.
        return pieces.last_writer() == unsent.writer if pieces.size else not unsent.has_begun

    def has_journal(self) -> bool:
        """Whether there is a journal."""
        if self._has_newest():
            return True
        self._pieces.refresh()
        return self._pieces.size > 0

    def journal_size(self) -> int:
        """The length of the journal.

        Raises:
            FileNotFoundError: There is none.
        """
        if self._has_newest():
            with suppress(FileNotFoundError):
                return self._local.journal_size()
        self._pieces.refresh()
        if not self._pieces.size:
            raise FileNotFoundError(self.journal_place)
        return self._pieces.size

    def end_writing(self) -> None:
        """Send what a dead program on this machine has left, then seal the journal.

        Raises:
            JournalError: A piece is damaged.
            OSError: The store refuses, or does not answer.
        """
        if self.has_file(_SUMMARY):
            return  # it has ended by itself
        send_rest(self._objects, self._connection.local, self.flow, self.run_id)
        self._pieces.refresh(now=True)
        if self._pieces.size:
            seal(self._objects, self._pieces.folder, os.urandom(WRITER_BYTES))
            self._pieces.refresh(now=True)
        self._objects.delete([self._name(CLAIM)])

    # --- files beside it ------------------------------------------------------------------------

    def put_file(self, name: str, data: bytes) -> None:
        """Write an object. What the journal has so far is sent before."""
        if name.startswith(_LOCAL_FILES):
            self._local.put_file(name, data)
            return
        if self._appender is not None:
            try:
                self._appender.deliver()
            except JournalError as error:
                raise OSError(str(error)) from error
        self._objects.put(self._name(name), data)

    def put_files(self, files: Mapping[str, bytes], deliver: Callable[[], None]) -> None:
        """Put the objects while `deliver` sends the journal.

        If somebody else has ended the run, they are there all the same: without a summary, nobody
        reads them.

        Raises:
            OSError: One of them could not be put.
        """

        def do(name: str) -> None:
            if name:
                self._objects.put(self._name(name), files[name])
            else:
                deliver()

        self._objects.each(do, ["", *files])

    def update_file(self, name: str, change: Callable[[bytes], bytes], *, most: int) -> None:
        """Replace an object, if nobody else has changed it meanwhile; else begin again.

        Raises:
            StoreError: It cannot be written to.
        """
        objects, place = self._objects, self._name(name)
        try:
            while True:
                try:
                    before, facts = objects.get_with_facts(place)
                except FileNotFoundError:
                    before, facts = b"", None
                    if not self.is_there():
                        raise
                after = change(before[:most])
                if after == before:
                    return
                if facts is None:
                    if objects.create(place, after) is None:
                        return
                elif objects.replace(place, after, facts.e_tag) is not None:
                    return
        except OSError as error:
            raise StoreError(explain_write(f"{self.place}/{name}", error)) from error

    def read_file(self, name: str, *, most: int, offset: int = 0) -> bytes:
        """The bytes of a file from `offset` on, `most` at most.

        Raises:
            FileNotFoundError: There is no such file.
        """
        if name.startswith(_LOCAL_FILES):
            return self._local.read_file(name, most=most, offset=offset)
        return self._objects.get_range(self._name(name), offset, most)

    def has_file(self, name: str) -> bool:
        """Whether there is such a file."""
        try:
            self.file_size(name)
        except FileNotFoundError:
            return False
        return True

    def file_size(self, name: str) -> int:
        """The length of a file.

        Raises:
            FileNotFoundError: There is no such file.
        """
        if name.startswith(_LOCAL_FILES):
            return self._local.file_size(name)
        return self._objects.head(self._name(name)).size

    def delete_files(self, prefix: str) -> None:
        """Delete all files whose names begin so."""
        if os.path.isdir(self._local.place):  # noqa: PTH112 - a path as text takes a fraction of the time
            self._local.delete_files(prefix)
        if prefix.startswith(_LOCAL_FILES):
            return
        objects = self._objects
        found = (each.name for each in objects.listed(self.folder))
        begin = self._name(prefix)
        objects.delete([name for name in found if name.startswith(begin)])

    # --- the rest -------------------------------------------------------------------------------

    def value_sink(
        self, name: str, *, durable: bool = False, tell: Tell | None = None
    ) -> ValueSink:
        """Takes the bytes of this run's values, which are in the store before they are told."""
        del durable  # what is in the store survives whatever happens here
        return values.sink_of(self._connection, self.flow, self.run_id, name, tell)

    def discard(self) -> None:
        """Delete its objects, the journal's first piece first; then what is on this machine."""
        if self._appender is not None:
            self._appender.abandon()
        objects = self._objects
        try:
            names = [each.name for each in objects.listed(self.folder)]
            journal = f"{self.folder}/{JOURNAL}/"
            objects.delete(sorted(names, key=lambda name: (not name.startswith(journal), name)))
        except (OSError, StoreError):
            pass
        self._local.discard()

    def forget(self) -> None:
        """Delete what this machine has of a run that was removed."""
        self._local.discard()

    def _name(self, name: str) -> str:
        return f"{self.folder}/{name}"
