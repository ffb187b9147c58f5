"""A store in a local folder: implements `asyncflow.store.interface` with plain files and locks.

`asyncflow.store.layout` has the paths. Every write goes through folders that are held open
(`asyncflow.store.folders`), so that nothing is written behind a link.
"""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from asyncflow._support.commit_points import reached
from asyncflow._support.fork_safety import keep_from_children, no_forks
from asyncflow.errors import JournalError, StoreError
from asyncflow.store.files import (
    explain,
    explain_write,
    open_regular,
    read_file,
    sync_file,
    write_all,
)
from asyncflow.store.journal import JournalReader, JournalWriter, is_being_written
from asyncflow.store.layout import Layout
from asyncflow.store.limit_files import FolderLimits
from asyncflow.store.run_ids import REMOVED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from asyncflow.store.folders import Folder
    from asyncflow.store.incoming_run import LocalIncomingRun
    from asyncflow.store.interface import Sent
    from asyncflow.store.run_keys import HeldKey
    from asyncflow.store.value_files import ValueFilesReader, ValueFilesWriter
    from asyncflow.store.value_interface import Tell

_JOURNAL: Final = "journal"
_LOCK_SECONDS: Final = 5.0  # an update takes milliseconds
_KEY_BYTES: Final = 32


class LocalStore(Layout):
    """A store in a local folder; see `RunStore` for what its methods promise."""

    cache: Final = ""
    node: Final = ""  # what workers write is stored at once

    def __repr__(self) -> str:
        return f"<LocalStore {self.root}>"

    @property
    def location(self) -> str:
        """Its folder."""
        return os.fspath(self.root)

    @property
    def scratch(self) -> Path:
        """The folder itself: unnamed files in it disturb nobody."""
        return self.root

    def is_at(self, location: str) -> bool:
        """Whether a path leads to this folder."""
        path = Path(location)
        return path == self.root or (path.exists() and path.samefile(self.root))

    @property
    def named_limits(self) -> FolderLimits:
        """The limits with names that all engines of the store share."""
        return FolderLimits(self.limits)

    def close(self) -> None:
        """Does nothing: what was written is in its place."""

    def send_rest(self) -> list[Sent]:
        """Does nothing: what was written is in its place."""
        return []

    def run(self, flow: str, run_id: str, *, removed: bool = False) -> LocalRun:
        """A run, which may be missing; of a removed one, what is kept of it.

        Raises:
            NotFoundError: A flow or a run cannot have that name.
        """
        return LocalRun(self, flow, run_id, self.run_place(flow, run_id, removed=removed))

    def make_run(self, flow: str) -> LocalRun:
        """Create the folder of a new run.

        Raises:
            NotFoundError: A flow cannot have that name.
            StoreError: The store cannot be written to.
        """
        return self.run(flow, self.create_run(flow))

    @contextmanager
    def holding_key(self, flow: str, key: str) -> Iterator[HeldKey]:
        """Hold the lock of the key's file within the block.

        Raises:
            NotFoundError: A flow cannot have that name.
            StoreError: The store cannot be written to, or somebody holds the key for long.
        """
        from asyncflow.store.run_keys import KEYS, held_key

        path = self.keys_of(flow)
        try:
            opened = self.folder(KEYS, flow, make=True)
        except OSError as error:
            raise StoreError(explain_write(str(path), error)) from error
        with opened as folder, held_key(folder, key) as held:
            yield held

    def run_of_key(self, flow: str, key: str) -> str:
        """The id in the key's file.

        Raises:
            NotFoundError: A flow cannot have that name.
            StoreError: It cannot be read.
        """
        from asyncflow.store.run_keys import key_name, run_in

        path = self.keys_of(flow) / key_name(key)
        try:
            return run_in(read_file(path, most=_KEY_BYTES))
        except FileNotFoundError:
            return ""
        except OSError as error:
            raise StoreError(explain(str(path), error, doing="read")) from error

    def receive(self, flow: str, run_id: str, *, removed: bool = False) -> LocalIncomingRun:
        """A folder beside the runs, until the run is complete.

        Raises:
            NotFoundError: A flow or a run cannot have that name.
            StoreError: Another process is copying it, or the store cannot be written to.
        """
        from asyncflow.store.incoming_run import LocalIncomingRun

        return LocalIncomingRun(self, flow, run_id, removed=removed)

    def value_source(self, flow: str) -> ValueFilesReader:
        """Reads the bytes of a flow's values.

        Raises:
            NotFoundError: A flow cannot have that name.
        """
        from asyncflow.store.value_files import ValueFilesReader

        return ValueFilesReader(self, flow)

    def uploader(self) -> None:
        """What is written is stored."""

    def blob_size(self, digest: bytes) -> int:
        """The length of a blob's file.

        Raises:
            FileNotFoundError: There is none.
        """
        return os.path.getsize(self.blob(digest))  # noqa: PTH202 - a path as text takes a fraction of the time


class LocalRun:
    """A run in a local folder; see `StoredRun` for what its methods promise."""

    __slots__ = ("flow", "journal_place", "place", "run_id", "store")

    def __init__(self, store: LocalStore, flow: str, run_id: str, place: str) -> None:
        self.store: Final = store
        self.flow: Final = flow
        self.run_id: Final = run_id
        self.place: Final = place
        self.journal_place: Final = f"{place}/{_JOURNAL}"

    @classmethod
    def at(cls, folder: Path) -> LocalRun:
        """The run with this folder, removed or not."""
        flow = folder.parent.parent if folder.parent.name == REMOVED else folder.parent
        return cls(LocalStore(flow.parent.parent), flow.name, folder.name, os.fspath(folder))

    def __repr__(self) -> str:
        return f"<LocalRun {self.place}>"

    @property
    def pathspec(self) -> str:
        """`Flow/run`."""
        return f"{self.flow}/{self.run_id}"

    @property
    def journal_file(self) -> str:
        """The path of the journal, relative to the folder of the flow."""
        return f"{self.run_id}/{_JOURNAL}"

    def is_there(self) -> bool:
        """Whether its folder exists."""
        return os.path.exists(self.place)  # noqa: PTH110 - a path as text takes a fraction of the time

    def is_being_written(self) -> bool:
        """Whether a process holds the journal's lock."""
        return is_being_written(self.journal_place)

    # --- the journal ----------------------------------------------------------------------------

    def begin_journal(self, *, durable: bool = False) -> JournalWriter:
        """Create the journal, and lock it.

        Raises:
            JournalError: It exists already, or cannot be created.
        """
        try:
            with self._folder() as folder:
                return JournalWriter.create(folder, _JOURNAL, durable=durable)
        except OSError as error:
            what = f"the journal {self.journal_place}"
            raise JournalError(explain_write(what, error, doing="begin")) from error

    def open_journal(self) -> JournalReader:
        """Open the journal for reading.

        Raises:
            FileNotFoundError: It does not exist.
            JournalError: This version cannot read it.
        """
        return JournalReader(self.journal_place)

    def has_journal(self) -> bool:
        """Whether its file exists."""
        return self.has_file(_JOURNAL)

    def journal_size(self) -> int:
        """The length of the journal's file.

        Raises:
            FileNotFoundError: There is none.
        """
        return self.file_size(_JOURNAL)

    def end_writing(self) -> None:
        """Does nothing: a journal has its writer's lock, and the lock dies with the writer."""

    # --- files beside it ------------------------------------------------------------------------

    def put_file(self, name: str, data: bytes) -> None:
        """Write a file under another name, then rename it."""
        with self._folder() as folder:
            _put(folder, name, data)

    def put_files(self, files: Mapping[str, bytes], deliver: Callable[[], None]) -> None:
        """Call `deliver`, then write the files.

        Raises:
            OSError: A file could not be written.
        """
        deliver()
        with self._folder() as folder:
            for name, data in files.items():
                _put(folder, name, data)

    def update_file(self, name: str, change: Callable[[bytes], bytes], *, most: int) -> None:
        """The same, under a lock of the run's folder, and synced.

        Raises:
            StoreError: It cannot be written to, or cannot be locked.
        """
        try:
            with no_forks():
                folder = self._folder()
                keep_from_children(folder)
            try:
                self._lock(folder)
                reached("update.begin")
                try:
                    before = self.read_file(name, most=most)
                except FileNotFoundError:
                    before = b""
                after = change(before)
                if after != before:
                    _put(folder, name, after, sync=True)
                    folder.sync()
                    reached("update.synced")
            finally:
                with no_forks():
                    folder.close()
        except OSError as error:
            raise StoreError(explain_write(f"{self.place}/{name}", error)) from error

    def _lock(self, folder: Folder) -> None:
        try:
            if folder.lock(_LOCK_SECONDS):
                return
        except OSError as error:
            message = (
                f"the file system of {self.place} has no file locks ({error.strerror}); "
                "use a store on a local disk"
            )
            raise StoreError(message) from error
        message = f"{folder.holder()} holds a lock on {self.place}; end it"
        raise StoreError(message)

    def read_file(self, name: str, *, most: int, offset: int = 0) -> bytes:
        """The bytes of a file from `offset` on, `most` at most.

        Raises:
            FileNotFoundError: There is no such file.
        """
        if not offset:
            return read_file(f"{self.place}/{name}", most=most)
        descriptor = open_regular(f"{self.place}/{name}")
        try:
            return os.pread(descriptor, most, offset)
        finally:
            os.close(descriptor)

    def has_file(self, name: str) -> bool:
        """Whether there is such a file."""
        try:
            self.file_size(name)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def file_size(self, name: str) -> int:
        """The length of a file.

        Raises:
            FileNotFoundError: There is no such file.
        """
        return os.stat(f"{self.place}/{name}").st_size  # noqa: PTH116 - a path as text takes a fraction of the time

    def delete_files(self, prefix: str) -> None:
        """Delete all files whose names begin so, with drafts that a crash has left of them."""
        with self._folder() as folder:
            for entry in folder.entries():
                if entry.name.removeprefix(".").startswith(prefix):
                    folder.delete(entry.name)

    # --- the rest -------------------------------------------------------------------------------

    def value_sink(
        self, name: str, *, durable: bool = False, tell: Tell | None = None
    ) -> ValueFilesWriter:
        """Takes the bytes of this run's values: small ones go into a segment of that name."""
        del tell  # what is written is stored
        from asyncflow.store.value_files import ValueFilesWriter

        return ValueFilesWriter(self.store, self.flow, self.run_id, name, durable=durable)

    def discard(self) -> None:
        """Empty the journal, so that the run has never begun; then delete everything."""
        with (
            suppress(OSError),
            self.store.folder("flows", self.flow) as parent,
            self._folder() as folder,
        ):
            with suppress(FileNotFoundError):
                os.close(folder.open_file(_JOURNAL, os.O_WRONLY | os.O_TRUNC))
            for entry in sorted(folder.entries(), key=lambda entry: entry.name == _JOURNAL):
                folder.delete(entry.name)  # the journal last
            parent.delete_folder(self.run_id)

    def _folder(self) -> Folder:
        return self.store.folder("flows", self.flow, self.run_id)


def _put(folder: Folder, name: str, data: bytes, *, sync: bool = False) -> None:
    draft = f".{name}"
    descriptor = folder.open_file(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        write_all(descriptor, [data])
        if sync:  # otherwise a power cut could leave the new name without the bytes
            sync_file(descriptor)
    finally:
        os.close(descriptor)
    reached("file.rename")
    folder.rename(draft, folder, name)
    reached("file.renamed")
