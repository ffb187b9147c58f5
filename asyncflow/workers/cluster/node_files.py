"""The files that an agent keeps on its node: replicas of journals, and scratch files.

A worker reads what its task inherits in the journal of its run. Nobody on a node reads a journal
that another machine is writing. Instead, the records that a task needs come with its order, and are
written at their offsets into a sparse file: the *replica* of the journal. What was not sent is a
hole in it, whose checksum is wrong.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from asyncflow._support.fork_safety import keep_from_children, no_forks
from asyncflow.store.journal import HEADER

if TYPE_CHECKING:
    from collections.abc import Iterable

JOURNAL: Final = "journal"
"""The name of a replica within the folder of its run."""
_DRAFT: Final = "draft-"
_DRAFT_SECONDS: Final = 3600.0  # an older one was left by a crash


class NodeFiles:
    """A folder on a node's local disk, which its agent deletes in the end.

    If the agent is killed, the next agent on the node deletes it.
    """

    def __init__(self, parent: Path | None = None) -> None:
        """Create it, and delete what dead agents have left.

        Raises:
            OSError: It cannot be made.
        """
        base = (parent or Path(tempfile.gettempdir())) / f"asyncflow-{os.getuid()}"
        base.mkdir(mode=0o700, exist_ok=True)
        status = base.lstat()
        if status.st_uid != os.getuid() or not stat.S_ISDIR(status.st_mode):
            raise PermissionError(f"{base} is not a folder of this user")
        _sweep(base)
        name = uuid4().hex
        draft = base / f"{_DRAFT}{name}"
        draft.mkdir(mode=0o700)
        with no_forks():
            self._lock = (draft / "lock").open("wb")
            keep_from_children(self._lock)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self.folder: Final = base / name
        """Where it is; locked for as long as its agent lives."""
        draft.rename(self.folder)  # only now may others look for its lock
        self._journals: dict[int, int] = {}  # descriptors of replicas, by run

    def place_of(self, run: int) -> str:
        """The folder of a run's files; made when it is first needed.

        Raises:
            OSError: It cannot be made.
        """
        folder = self.folder / str(run)
        if run not in self._journals:
            folder.mkdir(mode=0o700, exist_ok=True)
            with no_forks():
                descriptor = os.open(folder / JOURNAL, os.O_RDWR | os.O_CREAT, 0o600)
            self._journals[run] = descriptor
            os.pwrite(descriptor, HEADER, 0)
        return os.fspath(folder)

    def write_records(self, run: int, pieces: Iterable[tuple[int, bytes]]) -> None:
        """Write pieces of the run's journal, each at its offset.

        Raises:
            OSError: They cannot be written.
        """
        self.place_of(run)
        descriptor = self._journals[run]
        for offset, data in pieces:
            done = 0
            while done < len(data):
                done += os.pwrite(descriptor, memoryview(data)[done:], offset + done)

    def write_file(self, run: int, name: str, data: bytes) -> None:
        """Write a file beside the replica.

        Raises:
            OSError: It cannot be written.
        """
        Path(self.place_of(run), name).write_bytes(data)

    def forget(self, run: int) -> None:
        """Delete the files of a run."""
        descriptor = self._journals.pop(run, None)
        if descriptor is not None:
            os.close(descriptor)
            shutil.rmtree(self.folder / str(run), ignore_errors=True)

    def close(self) -> None:
        """Delete everything. Harmless when repeated."""
        for run in list(self._journals):
            self.forget(run)
        shutil.rmtree(self.folder, ignore_errors=True)
        with no_forks():
            self._lock.close()

    def __repr__(self) -> str:
        return f"<NodeFiles {self.folder}: {len(self._journals)} runs>"


def _sweep(base: Path) -> None:
    """Delete the folders whose agents are gone."""
    for folder in base.iterdir():
        with suppress(OSError):
            if folder.name.startswith(_DRAFT):
                if folder.stat().st_mtime < time.time() - _DRAFT_SECONDS:
                    shutil.rmtree(folder, ignore_errors=True)
                continue
            with no_forks(), (folder / "lock").open("rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
