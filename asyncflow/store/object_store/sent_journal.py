"""The journal of a run in an object store: grows as a file here, and is sent as pieces.

Workers and readers on this machine use the file, everybody else the pieces. While anything of it
may not be in the store, there is a file `unsent` beside it, which names its writer. After a crash
it tells the next program which journals have something left, see `send_rest`. In the end it is
called `sent`. A journal with neither of the two is not of this machine's making.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from pathlib import Path
from threading import Condition, Lock
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from asyncflow._support import log
from asyncflow._support.commit_points import reached
from asyncflow.errors import JournalError
from asyncflow.store.files import OwnDescriptor, explain, open_regular, read_file, write_file
from asyncflow.store.journal import RecordReader
from asyncflow.store.object_store.piece_file import PieceFile, append_piece
from asyncflow.store.object_store.pieces import MOST_BYTES, WRITER_BYTES, Piece, name_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from asyncflow._support.guarded_descriptor import Descriptor
    from asyncflow.store.frames import RecordBatch
    from asyncflow.store.journal import JournalWriter
    from asyncflow.store.object_store.claim import Claim
    from asyncflow.store.object_store.objects import Objects
    from asyncflow.store.object_store.shipper import Shipper

JOURNAL: Final = "journal"
UNSENT: Final = "unsent"
"""Names the file beside a journal of which something may not have been sent."""
SENT: Final = "sent"
"""What that file is called when all was sent."""
_MOST_UNSENT_BYTES: Final = 1000
SYNC_SECONDS: Final = 90.0
"""How long a sync waits for the store: longer than one request is repeated."""


class RunEndedError(JournalError):
    """Somebody else has ended the run, or is its writer."""


class PieceSender:
    """Sends a local file to its pieces, from a known offset on; threads may share one."""

    def __init__(self, objects: Objects, folder: str, writer: bytes, path: str, sent: int) -> None:
        self._objects, self._folder, self.writer = objects, folder, writer
        self._file = OwnDescriptor(open_regular(path))
        self.sent = sent
        """How many bytes of the file are in the store."""

    def send_one(self, end: int) -> None:
        """Send the next piece of the file's bytes up to `end`; there must be some.

        Raises:
            RunEndedError: Somebody else has ended the journal, or has written to it.
            JournalError: The file has lost its end, or something that is no piece is in the way.
            OSError: The store refuses, or does not answer.
        """
        data = os.pread(self._file.number, min(end - self.sent, MOST_BYTES), self.sent)
        if not data:
            message = f"the journal of {self._folder} has lost its end: {end} bytes were written"
            raise JournalError(message)
        reached("piece.put")
        there = append_piece(self._objects, self._folder, Piece(self.sent, self.writer, data))
        reached("piece.written")
        if there.is_seal:
            raise self.ended_by_others()
        # An earlier program that has sent this very file may have cut it elsewhere.
        if there.data != data and there.data != os.pread(
            self._file.number, len(there.data), self.sent
        ):
            raise self.ended_by_others()
        self.sent += len(there.data)

    def ended_by_others(self) -> RunEndedError:
        """The error of a writer that was taken for dead."""
        message = (
            f"somebody else has ended this run at byte {self.sent} of its journal: it was resumed "
            "or removed, because it seemed to be dead"
        )
        return RunEndedError(message)

    def is_ended_by_others(self) -> bool:
        """Whether somebody else has a piece where the next one is to be, or has removed the first.

        Raises:
            OSError: The store refuses, or does not answer.
        """
        if self._objects.exists(f"{self._folder}/{name_of(self.sent)}"):
            return True
        return self.sent > 0 and not self._objects.exists(f"{self._folder}/{name_of(0)}")


class SentJournal:
    """The one writer of a run's journal; implements `JournalAppender`."""

    def __init__(
        self,
        local: JournalWriter,
        sender: PieceSender,
        claim: Claim,
        shipper: Shipper,
        *,
        durable: bool,
    ) -> None:
        """Take a journal that was begun, with its lock; `shipper` sends it in the background."""
        self._local, self._sender, self._claim, self._shipper = local, sender, claim, shipper
        self._durable = durable
        self._sending, self._claiming = Condition(), Lock()
        self._is_sending = False
        self._error: JournalError | None = None
        """Why nothing can be sent any more."""
        self._trouble: OSError | None = None
        """Why nothing could be sent last time."""
        self._is_over = False
        self._has_begun = False
        self._folder = str(local.path.parent)
        self._on_ended: Callable[[JournalError], object] | None = None
        shipper.add(self)

    def __repr__(self) -> str:
        return f"<SentJournal {self._local!r}, {self._sender.sent} sent>"

    @property
    def size(self) -> int:
        """The offset of the next record."""
        return self._local.size

    def write(self, frames: bytes) -> None:
        """Append whole frames to the file; a durable journal also sends them before it returns.

        Raises:
            JournalError: They cannot be written, or sent; or somebody else has ended the run.
        """
        self._check()
        self._local.write(frames)
        if self._durable:
            self._send(self._local.size)
        else:
            self._shipper.tell()

    def check_in_place(self) -> None:
        """Check that the file is in its place, and that nobody else has ended the run.

        Raises:
            JournalError: One of them is not so.
        """
        self._check()
        self._local.check_in_place()

    def sync(self) -> None:
        """Return once everything written is in the store.

        Raises:
            JournalError: It is not, and the store has been asked for long.
        """
        size, until = self._local.size, time.monotonic() + SYNC_SECONDS
        with self._sending:
            while self._sender.sent < size:
                self._check()
                rest = until - time.monotonic()
                if self._trouble is not None or rest <= 0:
                    raise self._not_sent(self._trouble)
                self._shipper.tell()
                self._sending.wait(rest)

    def deliver(self) -> None:
        """Return once everything written is in the store, sent by this thread.

        Raises:
            JournalError: It is not: somebody else has ended the run, or the store does not answer.
        """
        self._send(self._local.size)

    def close(self) -> None:
        """Release the lock, and have the rest sent in the background. Harmless when repeated."""
        if not self._is_over:
            self._is_over = True
            self._local.close()
            self._shipper.finish(self)

    def watch(self, on_ended: Callable[[JournalError], object]) -> None:
        """Call `on_ended`, in another thread, when somebody else has ended the run."""
        self._on_ended = on_ended
        if self._error is not None:
            on_ended(self._error)

    def abandon(self) -> None:
        """Send nothing any more: the run is being discarded."""
        self._error = JournalError(f"the run of {self._local.path} was discarded")

    def _check(self) -> None:
        if self._error is not None:
            raise JournalError(str(self._error))

    def _not_sent(self, trouble: OSError | None) -> JournalError:
        rest = self.size - self._sender.sent
        reason = f": {trouble}" if trouble is not None else ""
        message = (
            f"{rest} bytes of the journal {self._local.path} could not be sent to the store"
            f"{reason}; when it answers again, `asyncflow push` sends them"
        )
        return JournalError(message)

    # --- what the shipper calls ---

    def is_due(self) -> bool:
        """Whether something is to be sent."""
        has_news = self._sender.sent < self._local.size and self._error is None
        return has_news or self._claim.is_due

    def ship(self) -> None:
        """Renew the claim if it is time, and send the next piece."""
        try:
            if self._sender.sent < self._local.size:
                self._send(self._local.size, most_pieces=1)
            if self._claim.is_due:
                self._renew_claim()
        except RunEndedError as ended:
            self._end(ended)
        except (JournalError, OSError):
            pass  # it is kept for whoever writes next, or is tried again

    def finish(self) -> None:
        """Send the rest, then say that nobody writes the run any more."""
        try:
            self._send(self._local.size)
            self._claim.release()
            note_sent(self._folder)
        except (JournalError, OSError) as error:
            log.warning(f"{self._local.path}: {error}")

    def _send(self, end: int, most_pieces: int = 0) -> None:
        pieces = 0
        while self._sender.sent < end and not 0 < most_pieces <= pieces:
            pieces += 1
            with self._sending:
                while self._is_sending:
                    self._sending.wait()
                self._check()
                if self._sender.sent >= end:
                    return
                self._is_sending = True
            error: OSError | None = None
            try:
                # First, or the run would look interrupted. After a long pause, somebody may also
                # have removed it, and then no seal is in the way of the piece.
                if self._claim.is_stale:
                    self._renew_claim()
                self._sender.send_one(end)
                if not self._has_begun:
                    note_unsent(self._folder, Unsent(self._sender.writer, has_begun=True))
                    self._has_begun = True
            except JournalError as ended:
                self._end(ended)
                raise
            except OSError as trouble:
                error = trouble
                raise self._not_sent(trouble) from trouble
            finally:
                with self._sending:
                    self._is_sending = False
                    self._trouble = error
                    self._sending.notify_all()

    def _renew_claim(self) -> None:
        """Make the claim, or renew it.

        Raises:
            RunEndedError: It was taken away, with the run or because the run was sealed.
            OSError: The store refuses, or does not answer.
        """
        with self._claiming:
            self._claim.beat()
            if self._claim.is_lost and self._sender.is_ended_by_others():
                raise self._sender.ended_by_others()

    def _end(self, error: JournalError) -> None:
        """Somebody else has ended the run."""
        if self._error is None:
            self._error = error
            if self._on_ended is not None:
                self._on_ended(error)


class PieceJournal(RecordReader):
    """Reads a journal in pieces, while it is being written or afterwards."""

    def __init__(self, file: PieceFile, place: str) -> None:
        """Take a file that was refreshed; `place` is where it is, for messages.

        Raises:
            FileNotFoundError: It has no piece.
            JournalError: This version cannot read it.
        """
        self.path = place
        self._file = file
        if not file.size:
            raise FileNotFoundError(place)
        self._check_header()

    def __repr__(self) -> str:
        return f"<PieceJournal {self._file!r}>"

    def _pread(self, size: int, offset: int) -> bytes:
        return self._file.read(size, offset)

    def read_one(self, offset: int, final: int = 0) -> bytes:
        """The payload of the record at `offset`.

        Raises:
            JournalError: There is no whole record at that offset.
        """
        if offset >= self._file.size:
            self._file.refresh(now=True)
        return super().read_one(offset, final)

    def read_from(self, offset: int = 0) -> Iterator[tuple[int, bytes, int]]:
        """Every record from `offset` on, after a look for new pieces.

        Raises:
            JournalError: There is damage before the end.
        """
        self._file.refresh()
        return super().read_from(offset)

    def read_batches(self, offset: int = 0) -> Iterator[RecordBatch]:
        """The same records, many at once, after a look for new pieces.

        Raises:
            JournalError: There is damage before the end; the records before it have come.
        """
        self._file.refresh()
        return super().read_batches(offset)

    def size(self) -> int:
        """Length in bytes, as it was when it was last looked at."""
        self._file.refresh()
        return self._file.size

    @property
    def opened(self) -> Sequence[Descriptor]:
        """None."""
        return ()

    def close(self) -> None:
        """Does nothing: no descriptor belongs to it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class Unsent(NamedTuple):
    """A journal of which something may not have been sent."""

    writer: bytes
    has_begun: bool
    """Whether it has a piece in the store. If there is none, the run was removed since."""


def note_unsent(folder: str, unsent: Unsent) -> None:
    """Note that a journal in this folder is being written."""
    reached("unsent.note")
    noted = {"writer": unsent.writer.hex(), "has_begun": unsent.has_begun}
    write_file(f"{folder}/{UNSENT}", json.dumps(noted).encode())


def note_sent(folder: str) -> None:
    """Note that all of the journal in this folder is in the store."""
    reached("unsent.sent")
    with suppress(FileNotFoundError):
        Path(folder, UNSENT).rename(Path(folder, SENT))


def is_sent(folder: str) -> bool:
    """Whether the journal in this folder is whole, and all of it in the store."""
    return os.path.exists(f"{folder}/{SENT}")  # noqa: PTH110 - a path as text takes a fraction of the time


def unsent_in(folder: str) -> Unsent | None:
    """The journal in a folder, if something of it may not have been sent; None if all was.

    If its writer has died while it noted that, the note says nothing: then the writer is all zeros.

    Raises:
        JournalError: The note cannot be read.
    """
    path = f"{folder}/{UNSENT}"
    try:
        data = read_file(path, most=_MOST_UNSENT_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise JournalError(explain(path, error, doing="read")) from error
    try:
        noted = json.loads(data)
        unsent = Unsent(bytes.fromhex(noted["writer"]), noted["has_begun"] is True)
    except (ValueError, LookupError, TypeError, RecursionError):
        return Unsent(bytes(WRITER_BYTES), has_begun=False)
    return unsent if len(unsent.writer) == WRITER_BYTES else None
