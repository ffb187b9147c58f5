"""The replica of a journal, in place of the journal that another machine is writing.

See `asyncflow.workers.cluster.node_files`: what a worker needs of the journal is in a local file,
at the same offsets.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from asyncflow.store.files import open_file, read_at, read_file, read_writable_at
from asyncflow.store.journal import JournalReader

if TYPE_CHECKING:
    from asyncflow.codec import Chunk
    from asyncflow.errors import ArtifactError
    from asyncflow.store.interface import OpenJournal
    from asyncflow.store.value_interface import ValueSource
    from asyncflow.values import ArtifactRef


class Replica:
    """The local folder with pieces of one run's journal."""

    def __init__(self, folder: str, journal_file: str, place: str) -> None:
        """Name it.

        Args:
            folder: Where it is on this node.
            journal_file: What refs call the journal.
            place: Where the journal is in its store, for messages: the folder goes with the run.
        """
        self._folder, self._journal_file, self._place = folder, journal_file, place

    @property
    def _path(self) -> str:
        return f"{self._folder}/journal"

    def open_journal(self) -> OpenJournal:
        """The replica, as a journal.

        Raises:
            JournalError: It is none.
            OSError: It cannot be opened.
        """
        journal = JournalReader(self._path)
        journal.path = f"{self._place}, as it was sent to this node,"
        return journal

    def read_file(self, name: str, *, most: int) -> bytes:
        """A file that was sent beside the journal.

        Raises:
            OSError: It cannot be read.
        """
        return read_file(os.path.join(self._folder, name), most=most)  # noqa: PTH118 - a path as text takes a fraction of the time

    def source(self, values: ValueSource) -> ValueSource:
        """Values from the store, but those in the journal from the replica."""
        return ReplicaSource(values, self._path, self._journal_file)

    def __repr__(self) -> str:
        return f"<Replica {self._folder}>"


class ReplicaSource:
    """The values of a flow's runs, of which those in one journal come from its replica."""

    def __init__(self, values: ValueSource, path: str, journal_file: str) -> None:
        self._values, self._path, self._journal_file = values, path, journal_file
        self.open_large, self.verify_large = values.open_large, values.verify_large

    def read(
        self, ref: ArtifactRef, offset: int, size: int, *, name: str = "", own: bool = False
    ) -> Chunk:
        """A range of a value's bytes, as of any `ValueSource`."""
        if ref.file != self._journal_file:
            return self._values.read(ref, offset, size, name=name, own=own)
        read = read_writable_at if own else read_at
        data = read(self._path, ref.offset + offset, size)
        if len(data) != size:
            raise self.corrupt(ref, name, "it was not sent to this node")
        return data

    def corrupt(self, ref: ArtifactRef, name: str, reason: str) -> ArtifactError:
        """The error for a value that is not what was stored."""
        open_file.cache_clear()
        return self._values.corrupt(ref, name, reason)

    def __repr__(self) -> str:
        return f"<ReplicaSource {self._path}>"
