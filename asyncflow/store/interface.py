"""The protocols of a store: a `RunStore`, and in it each run as a `StoredRun`.

`asyncflow.store.open_store` opens one: in a local folder (`asyncflow.store.local_store`) or in an
object store (`asyncflow.store.object_store`). The protocols are made so that both can be:

* Nothing here is a path. What a caller may show, or pass to `open_store` again, is text: the
  `location` of a store, the `place` of a run. Two folders are local by nature, whatever the store
  is: `scratch` and `limits`.
* The journal grows by whole records at its end, and has one writer. So it may be one file, or
  pieces that are each created once, at the offset where the piece before ends.
* Files beside the journal are small, and appear whole or not at all. One may be updated by several
  processes, one after the other (`update_file`): by a lock, or by a put that fails if somebody else
  was faster.
* What a folder does by locks, times and renames has a name of its own: `is_being_written`,
  `discard`, and the rule that a value which is put again counts as new for a garbage collection.

Everything here may wait for a disk or a network: call it in a thread or a worker, never on an event
loop. Besides the errors that a docstring names, a call may raise `OSError`, as files do; only
`FileNotFoundError` says that something does not exist.

Collecting, verifying and removing (`asyncflow.store.maintenance`) work on files or objects as such,
so each kind of store has its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from asyncflow._support.guarded_descriptor import Descriptor
    from asyncflow.errors import JournalError
    from asyncflow.store.frames import RecordBatch
    from asyncflow.store.incoming_interface import IncomingRun
    from asyncflow.store.layout import Listing
    from asyncflow.store.limit_interface import LimitStore
    from asyncflow.store.value_interface import Tell, ValueSink, ValueSource, ValueUploader
    from asyncflow.values import RunId


class Sent(NamedTuple):
    """What was done about the journal of a run whose writer had died before all of it was sent."""

    pathspec: str
    sent: int
    """How many bytes were sent."""
    dropped: int
    """How many were dropped, because somebody else had ended the run before."""


class JournalAppender(Protocol):
    """The one writer of a run's journal. While it is open, the run is being written."""

    @property
    def size(self) -> int:
        """The offset of the next record."""

    def write(self, frames: bytes, /) -> None:
        """Append whole frames, see `asyncflow.store.frames.frame`: all of them or none.

        When this returns, they survive a crash of this process, and, in a durable journal, a power
        cut.

        Raises:
            JournalError: They could not be written, and the journal is as before; or they could
                not be made durable, and must not be announced.
        """

    def sync(self) -> None:
        """Return once everything written survives a power cut.

        Raises:
            JournalError: It is unknown whether it does.
        """

    def check_in_place(self) -> None:
        """Check that readers still find what is written here.

        Raises:
            JournalError: Somebody has deleted or moved the journal.
        """

    def watch(self, on_ended: Callable[[JournalError], object], /) -> None:
        """Have `on_ended` called, in any thread, if somebody else ends the writing of the run."""

    def deliver(self) -> None:
        """Return once readers anywhere find everything that was written.

        Raises:
            JournalError: They may never: somebody else has ended the run, or the store does not
                answer.
        """

    def close(self) -> None:
        """End the writing of the run, without waiting. Harmless when repeated."""


class OpenJournal(Protocol):
    """A run's journal, open for reading while it is written or afterwards.

    Threads may share one: it keeps no position. The last reference closes it.
    """

    def read_one(self, offset: int, final: int = 0, /) -> bytes:
        """The payload of the record at `offset`.

        Raises:
            JournalError: There is no whole record at that offset.
        """

    def read_bytes(self, size: int, offset: int, /) -> bytes:
        """So many bytes from an offset on, as they stand there.

        Raises:
            JournalError: The journal ends before.
        """

    def read_from(self, offset: int = 0, /) -> Iterator[tuple[int, bytes, int]]:
        """Every record from `offset` on: its offset, its payload, and where the next one begins.

        It ends where no whole record is left, for example at one that is being written. To follow a
        running run, call it again with the offset where it ended.

        Raises:
            JournalError: There is damage before the end.
        """

    def read_batches(self, offset: int = 0, /) -> Iterator[RecordBatch]:
        """The same records, many at once: as many as one read has brought.

        Raises:
            JournalError: There is damage before the end; the records before it have come.
        """

    def size(self) -> int:
        """Its length in bytes, including what a crash has left after the last record."""

    def is_torn(self, at: int, /) -> bool:
        """Whether a crash explains the bytes from `at` on, behind the last whole record."""

    @property
    def opened(self) -> Sequence[Descriptor]:
        """Its descriptors, which a step may close by mistake."""

    def close(self) -> None:
        """Close it. Harmless when repeated."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


class StoredRun(Protocol):
    """One run of a store, which may exist or not; making the object touches nothing."""

    @property
    def store(self) -> RunStore:
        """The store that it is in."""

    @property
    def flow(self) -> str:
        """The name of its flow."""

    @property
    def run_id(self) -> str:
        """Its id within the flow."""

    @property
    def pathspec(self) -> str:
        """`Flow/run`."""

    @property
    def place(self) -> str:
        """Where it is stored, for messages."""

    @property
    def journal_place(self) -> str:
        """Where its journal is stored, for messages."""

    @property
    def journal_file(self) -> str:
        """The `file` of a ref to bytes within this run's journal."""

    def is_there(self) -> bool:
        """Whether the store has any file of it."""

    def is_being_written(self) -> bool:
        """Whether a living process has its journal open for appending.

        False once that process has closed it or is dead. If that cannot be found out now, for
        example for lack of file descriptors, the answer is True.
        """

    # --- the journal ---

    def begin_journal(self, *, durable: bool = False) -> JournalAppender:
        """Begin the journal of a run that has none; a durable one survives power cuts.

        Raises:
            JournalError: It exists already, or cannot be begun.
        """

    def open_journal(self) -> OpenJournal:
        """Open the journal for reading.

        Raises:
            FileNotFoundError: It does not exist.
            JournalError: This version cannot read it.
        """

    def has_journal(self) -> bool:
        """Whether there is a journal."""

    def journal_size(self) -> int:
        """The length of the journal in bytes, without opening it.

        Raises:
            FileNotFoundError: It does not exist.
        """

    def end_writing(self) -> None:
        """Make sure that nobody appends to the journal any more, and that readers find all of it.

        Not even a writer can that only seemed to be dead.

        Raises:
            JournalError: The journal is damaged.
            OSError: The store refuses, or does not answer.
        """

    # --- small files beside the journal: `summary`, `index`, `tags`, `inputs-N` ---

    def put_file(self, name: str, data: bytes) -> None:
        """Store a file whole; one of that name is replaced. A crash leaves either of the two."""

    def put_files(self, files: Mapping[str, bytes], deliver: Callable[[], None]) -> None:
        """Call what delivers the journal, and store files as `put_file` does.

        Where each of these is a request they are made together. So when this fails, any of them may
        have been done.

        Raises:
            OSError: A file could not be stored.
            AsyncflowError: As `deliver` raises it, whatever else has failed.
        """

    def update_file(self, name: str, change: Callable[[bytes], bytes], *, most: int) -> None:
        """Replace a file by what `change` makes of its bytes; of none if there is no such file.

        No other update of the run's files comes in between, in whatever process. A crash leaves
        the file as it was or as it is afterwards. When this returns, it survives a power cut.
        If `change` raises, or changes nothing, the file stays.

        Raises:
            StoreError: It cannot be written to, or cannot be locked.
        """

    def read_file(self, name: str, *, most: int, offset: int = 0) -> bytes:
        """The bytes of a file from `offset` on, `most` at most.

        Raises:
            FileNotFoundError: There is no such file.
        """

    def has_file(self, name: str) -> bool:
        """Whether there is such a file."""

    def file_size(self, name: str) -> int:
        """The length of a file in bytes.

        Raises:
            FileNotFoundError: There is no such file.
        """

    def delete_files(self, prefix: str) -> None:
        """Delete all files whose names begin so."""

    # --- the rest ---

    def value_sink(
        self, name: str, *, durable: bool = False, tell: Tell | None = None
    ) -> ValueSink:
        """Takes the bytes of this run's values, see `asyncflow.store.artifacts.ArtifactWriter`.

        Writers at the same time should have different names. With `durable`, values survive a power
        cut after `sync`. For a store that is elsewhere, `sync` calls `tell`, so that somebody else
        uploads them, who has the name `RunStore.node`; without that it uploads them itself.
        """

    def discard(self) -> None:
        """Delete a run that was never announced, as far as that is possible.

        From the first moment on it counts as never begun.
        """


class KeyHolder(Protocol):
    """A key that nobody else can look at or give away now."""

    @property
    def run_id(self) -> str:
        """The run that was given the key, which may have begun or not; empty for none."""

    def give_to(self, run_id: str) -> None:
        """Give it to a run that is about to begin; durable when this returns.

        Raises:
            OSError: It cannot be written.
        """


class RunStore(Protocol):
    """A store, open: the flows in it, their runs, and the values of all."""

    @property
    def location(self) -> str:
        """The location that `open_store` accepts, also in another process."""

    @property
    def scratch(self) -> Path:
        """A folder on a local disk for files without a name, such as output of workers."""

    @property
    def named_limits(self) -> LimitStore:
        """The limits with names that all engines of the store share."""

    @property
    def cache(self) -> str:
        """The folder on this machine with copies of the store's files; empty if it needs none."""

    @property
    def node(self) -> str:
        """Names whoever uploads what this process and its workers write to `cache`.

        No two processes at the same time have the same name. Empty if nothing is uploaded.
        """

    def is_at(self, location: str) -> bool:
        """Whether this is another name for the location of this store."""

    def close(self) -> None:
        """Return when everything that this process has written is in its place, or cannot be now.

        For whoever has begun journals. Harmless when repeated.
        """

    def send_rest(self) -> list[Sent]:
        """Send what programs on this machine have written, and not sent before they died.

        Nothing of a program that is alive. Another store than one elsewhere needs nothing.

        Raises:
            JournalError: A journal is damaged.
            OSError: The store refuses, or does not answer.
        """

    # --- flows and runs ---

    def list_flows(self) -> Listing:
        """The flows that have ever run here, sorted by name, and strays among them.

        Raises:
            StoreError: They cannot be read.
        """

    def flows(self) -> list[str]:
        """The names of the flows that have ever run here, sorted.

        Raises:
            StoreError: They cannot be read.
        """

    def has_flow(self, flow: str) -> bool:
        """Whether a flow has ever run here.

        Raises:
            NotFoundError: A flow cannot have that name.
            StoreError: That cannot be found out.
        """

    def list_runs(self, flow: str) -> Listing:
        """A flow's runs, newest first, and strays among them; empty if it never ran.

        Raises:
            NotFoundError: A flow cannot have that name.
            StoreError: They cannot be read.
        """

    def runs(self, flow: str) -> list[RunId]:
        """The ids of a flow's runs, newest first; none for a flow that never ran.

        Raises:
            NotFoundError: A flow cannot have that name.
            StoreError: They cannot be read.
        """

    def newest_runs(self, flow: str) -> Iterator[RunId]:
        """The ids of a flow's runs, newest first; to take a few may cost less than `runs`.

        Raises:
            NotFoundError: A flow cannot have that name.
            StoreError: They cannot be read.
        """

    def has_no_run(self, flow: str, run_id: str, there: Iterable[str] | None = None) -> str:
        """The text of an error: which run is missing, and which runs exist, newest first.

        Raises:
            StoreError: The flow's runs cannot be read.
        """

    def run(self, flow: str, run_id: str, *, removed: bool = False) -> StoredRun:
        """A run, which may be missing; a `removed` one has only what other runs still need.

        Raises:
            NotFoundError: A flow or a run cannot have that name.
        """

    def make_run(self, flow: str) -> StoredRun:
        """Make a place for a new run; its id is above that of every other run of the flow.

        The id is the time in microseconds since 1970. If the clock is not past the newest id, it is
        one above that. A run that has no journal yet counts as not begun.

        Raises:
            NotFoundError: A flow cannot have that name.
            StoreError: The store cannot be written to.
        """

    def holding_key(self, flow: str, key: str) -> AbstractContextManager[KeyHolder]:
        """Hold a key within the block, while a run with it is started or found.

        Everybody else who asks for it, in whatever process, waits until then.

        Raises:
            NotFoundError: A flow cannot have that name.
            StoreError: The store cannot be written to, or somebody holds the key for long.
        """

    def run_of_key(self, flow: str, key: str) -> str:
        """The id of the run that was given a key, which may have begun or not; empty for none.

        Raises:
            NotFoundError: A flow cannot have that name.
            StoreError: That cannot be read.
        """

    def receive(self, flow: str, run_id: str, *, removed: bool = False) -> IncomingRun:
        """A place for a run that comes from another store; of a removed one, for what is needed.

        Raises:
            NotFoundError: A flow or a run cannot have that name.
            StoreError: Another process is copying it, or the store cannot be written to.
        """

    # --- values ---

    def value_source(self, flow: str) -> ValueSource:
        """Reads the bytes of a flow's values, see `asyncflow.store.artifacts.ArtifactReader`.

        Raises:
            NotFoundError: A flow cannot have that name.
        """

    def uploader(self) -> ValueUploader | None:
        """Uploads what the workers of this process write; None if there is nothing to upload.

        Raises:
            StoreError: It cannot be made.
        """

    def blob_size(self, digest: bytes) -> int:
        """The length of a large value in bytes, without opening it.

        Raises:
            FileNotFoundError: There is none with this digest.
        """
