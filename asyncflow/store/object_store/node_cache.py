"""The folder on a machine that has copies of what is in an object store.

```
CACHE/
  format, blobs/, flows/   as in a local store: what processes of this machine have written and read
  pieces/NAME/OFFSET       the bytes of the file NAME of the store from that offset on
  used/DIGEST              when a blob was last read, as the time of modification of an empty file
  pending/NODE/DIGEST      an empty file: NODE has to upload that blob
  nodes/NODE               locked for as long as the process lives that uploads for NODE
  fetching/xx              locked by whoever is fetching a file with such a name
  evicting                 locked by whoever makes room
  guard                    locked by whoever deletes a blob, or says that it has to be uploaded
```
Any number of processes may share a cache. A file in it is whole, or has a name that nobody asks
for. What is not used for longest is deleted when the cache has grown too large; that takes nothing
away from a process that has it mapped or open.

What waits to be sent is never deleted: the blobs that are named in `pending`, the segments of
living nodes, and journals, until a file `sent` says that all of a run is in the store.
"""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Final, NamedTuple
from zlib import crc32

from asyncflow._support import log
from asyncflow._support.commit_points import reached
from asyncflow._support.fork_safety import keep_from_children, no_forks
from asyncflow.errors import SettingsError, StoreError
from asyncflow.store.files import explain_write, write_all
from asyncflow.store.folders import FILE_MODE, FOLDER_MODE
from asyncflow.store.local_store import LocalStore
from asyncflow.store.object_store.sent_journal import SENT
from asyncflow.store.segments import SUFFIX

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from asyncflow.codec import Chunk

MOST_BYTES: Final = 20 << 30
"""How large a cache may be, unless the environment variable says otherwise."""

CACHE_BYTES_VARIABLE: Final = "ASYNCFLOW_CACHE_BYTES"
_ROOM: Final = 0.8  # of that is left when room was made
_LOOKS: Final = 16  # a process looks whether room is needed after this part of it was added
_LOCKS: Final = 256  # so that few downloads wait for one with another name
_USED_SECONDS: Final = 60.0  # a process notes a use of the same blob no more often
_NOTED: Final = 65_536  # blobs


class _Entry(NamedTuple):
    """A file that may be deleted."""

    used: float
    size: int
    path: str
    inode: tuple[int, int]


class NodeCache:
    """The cache of one object store on this machine; threads may share one."""

    def __init__(self, folder: str, *, most_bytes: int = 0) -> None:
        """Open it; what is missing is created.

        Raises:
            StoreError: It cannot be created or written to.
            SettingsError: The environment has a wrong size for it.
        """
        self.folder: Final = folder
        try:
            Path(folder).mkdir(FOLDER_MODE, parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(_explain(folder, error)) from error
        self.local: Final = LocalStore.open(folder, create=True)
        """What was written and read here, laid out as a store of its own."""
        self.most_bytes: Final = most_bytes or _most_bytes()
        self._added = self.most_bytes  # look once at first
        self._noted: dict[bytes, float] = {}
        self._lock = Lock()

    def __repr__(self) -> str:
        return f"<NodeCache {self.folder}>"

    # --- files that were fetched ----------------------------------------------------------------

    def piece(self, name: str, start: int) -> str:
        """The path of the bytes of a file of the store from that offset on."""
        return f"{self.folder}/pieces/{name}/{start:016x}"

    def pieces(self, name: str) -> Sequence[tuple[int, int]]:
        """Start and length of what there is of a file of the store, in order."""
        found = []
        with suppress(FileNotFoundError), os.scandir(f"{self.folder}/pieces/{name}") as entries:
            for entry in entries:
                with suppress(ValueError, FileNotFoundError):  # a draft, or it was just deleted
                    found.append((int(entry.name, 16), entry.stat().st_size))
        return sorted(found)

    def keep_piece(self, name: str, start: int, data: Chunk) -> None:
        """Keep the bytes of a file of the store from that offset on.

        Raises:
            OSError: They cannot be written.
        """
        path = self.piece(name, start)
        draft = f"{path}.{os.urandom(8).hex()}"
        Path(path).parent.mkdir(FOLDER_MODE, parents=True, exist_ok=True)
        try:
            _write(draft, data)
            Path(draft).rename(path)
        except BaseException:
            with suppress(OSError):
                Path(draft).unlink()
            raise
        self.note_added(len(data))

    def drop_pieces(self, name: str) -> None:
        """Delete what there is of a file of the store, because it may be damaged."""
        for start, _ in self.pieces(name):
            with suppress(OSError):
                Path(self.piece(name, start)).unlink()

    def drop_blob(self, digest: bytes) -> None:
        """Delete the copy of a blob, because it may be damaged."""
        with suppress(OSError):
            Path(self.local.blob(digest)).unlink()

    @contextmanager
    def fetching(self, name: str) -> Iterator[None]:
        """Within the block no other process or thread fetches the file of that name.

        Raises:
            OSError: There can be no lock.
        """
        folder = f"{self.folder}/fetching"
        path = f"{folder}/{crc32(name.encode()) % _LOCKS:02x}"
        with suppress(FileExistsError):
            Path(folder).mkdir(FOLDER_MODE)
        with _locked(path, fcntl.LOCK_EX):
            yield

    def note_use(self, digest: bytes) -> None:
        """A blob is read: it is one of the last to be deleted."""
        now = time.monotonic()
        if now < self._noted.get(digest, 0.0):
            return
        if len(self._noted) >= _NOTED:
            self._noted.clear()
        self._noted[digest] = now + _USED_SECONDS
        path = f"{self.folder}/used/{digest.hex()}"
        with suppress(OSError):  # then it is deleted earlier than others
            try:
                os.utime(path)
            except FileNotFoundError:
                Path(path).parent.mkdir(FOLDER_MODE, exist_ok=True)
                _write(path, b"")

    # --- what has to be uploaded ----------------------------------------------------------------

    def set_pending(self, node: str, digest: bytes) -> None:
        """Say that a blob has to be uploaded: it stays here until then.

        Raises:
            FileNotFoundError: There is no such blob.
            OSError: That failed.
        """
        path = self._pending(node, digest)
        with self._guarding(fcntl.LOCK_SH):
            try:
                _write(path, b"")
            except FileNotFoundError:
                Path(path).parent.mkdir(FOLDER_MODE, parents=True, exist_ok=True)
                _write(path, b"")
            self.local.blob_size(digest)

    def unset_pending(self, node: str, digest: bytes) -> None:
        """It was uploaded."""
        with suppress(OSError):
            Path(self._pending(node, digest)).unlink()

    def _pending(self, node: str, digest: bytes) -> str:
        return f"{self.folder}/pending/{node}/{digest.hex()}"

    @contextmanager
    def _guarding(self, how: int) -> Iterator[None]:
        """Keep blobs from being deleted within the block, or keep others from saying so."""
        with _locked(f"{self.folder}/guard", how):
            yield

    def hold_node(self, node: str) -> NodeLock:
        """Say that this process uploads for a node, until the lock is closed.

        Raises:
            StoreError: There can be no lock.
        """
        return NodeLock(f"{self.folder}/nodes", node)

    def is_living(self, node: str) -> bool:
        """Whether the process that uploads for a node lives."""
        try:
            descriptor = os.open(f"{self.folder}/nodes/{node}", os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        else:
            return False
        finally:
            os.close(descriptor)

    # --- making room ----------------------------------------------------------------------------

    def note_added(self, size: int) -> None:
        """So many bytes were added."""
        with self._lock:
            self._added += size

    def make_room_soon(self) -> None:
        """Make room if it is time for that."""
        if self._added < self.most_bytes // _LOOKS:
            return
        with self._lock:
            self._added = 0
        try:
            self.make_room()
        except OSError as error:
            log.warning("cannot make room in a cache", folder=self.folder, error=str(error))

    def make_room(self) -> int:
        """Delete what was not used for longest, if there is too much; return how many bytes.

        Another process that does so at the same time has to do.

        Raises:
            OSError: The folder cannot be read.
        """
        try:
            with _locked(f"{self.folder}/evicting", fcntl.LOCK_EX | fcntl.LOCK_NB):
                self._forget_dead_nodes()
                return self._evict()
        except BlockingIOError:
            return 0

    def _evict(self) -> int:
        entries = [*self._blobs(), *self._pieces(), *self._files_of_runs()]
        excess = sum(entry.size for entry in entries) - self.most_bytes
        if excess <= 0:
            return 0
        excess += int(self.most_bytes * (1 - _ROOM))
        mapped, freed = mapped_inodes(), 0
        for entry in sorted(entries):
            if freed >= excess:
                break
            if entry.inode in mapped:
                continue
            reached("cache.evict")
            with suppress(OSError), self._guarding(fcntl.LOCK_EX):
                if not self._is_pending(entry.path):
                    Path(entry.path).unlink()
                    freed += entry.size
        self._drop_empty_folders()
        return freed

    def _is_pending(self, path: str) -> bool:
        """Whether a file is a blob that has to be uploaded."""
        name = Path(path).name
        return any(Path(node, name).exists() for node in _folders(f"{self.folder}/pending"))

    def _blobs(self) -> Iterator[_Entry]:
        used = {}
        for entry in _files(f"{self.folder}/used"):
            used[entry.name] = entry
        for shard in _folders(f"{self.folder}/blobs"):
            for entry in _files(shard):
                status = _status(entry)
                mark = used.pop(entry.name, None)
                if status is None:
                    continue
                marked = _status(mark) if mark is not None else None
                at = max(status.st_mtime, status.st_atime, marked.st_mtime if marked else 0.0)
                yield _entry(entry, status, at)
        for mark in used.values():  # of blobs that are gone
            with suppress(OSError):
                Path(mark.path).unlink()

    def _pieces(self) -> Iterator[_Entry]:
        for folder, _, names in os.walk(f"{self.folder}/pieces"):
            for name in names:
                path = f"{folder}/{name}"
                with suppress(FileNotFoundError):
                    status = Path(path).stat()
                    at = max(status.st_mtime, status.st_atime)
                    inode = status.st_dev, status.st_ino
                    yield _Entry(at, status.st_size, path, inode)

    def _files_of_runs(self) -> Iterator[_Entry]:
        """What nobody will add to any more, and is in the store."""
        living: dict[str, bool] = {}
        for run in self._run_folders():
            files = _files(run)
            is_sent = any(entry.name == SENT for entry in files)
            for entry in files:
                node = entry.name.removesuffix(SUFFIX)
                is_segment = node != entry.name
                if is_segment and not is_sent and node not in living:
                    living[node] = self.is_living(node)
                status = _status(entry)
                may_go = is_sent or (is_segment and not living[node])
                if status is not None and may_go and entry.name != SENT:
                    yield _entry(entry, status, max(status.st_mtime, status.st_atime))

    def _run_folders(self) -> Iterator[str]:
        for flow in _folders(f"{self.folder}/flows"):
            yield from _folders(flow)

    def _drop_empty_folders(self) -> None:
        """Delete the folders of runs of which nothing is left but the note that it is sent."""
        for run in self._run_folders():
            if [entry.name for entry in _files(run)] == [SENT]:
                with suppress(OSError):
                    Path(run, SENT).unlink()
                    Path(run).rmdir()

    def _forget_dead_nodes(self) -> None:
        """Delete what has waited to be uploaded by processes that are gone: nobody was told."""
        for folder in _folders(f"{self.folder}/pending"):
            node = Path(folder).name
            if self.is_living(node):
                continue
            with suppress(OSError):
                for entry in os.scandir(folder):
                    Path(entry.path).unlink()
                Path(folder).rmdir()
        for entry in _files(f"{self.folder}/nodes"):
            if not self.is_living(entry.name):
                with suppress(OSError):
                    Path(entry.path).unlink()


class NodeLock:
    """Says that a node lives."""

    def __init__(self, folder: str, node: str) -> None:
        path = f"{folder}/{node}"
        try:
            Path(folder).mkdir(FOLDER_MODE, exist_ok=True)
            with no_forks():
                flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
                self._file = os.fdopen(os.open(path, flags, FILE_MODE), "rb+", buffering=0)
                keep_from_children(self._file)
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise StoreError(_explain(path, error)) from error

    def close(self) -> None:
        """The node is gone. Harmless when repeated."""
        with no_forks():
            self._file.close()


def _most_bytes() -> int:
    given = os.environ.get(CACHE_BYTES_VARIABLE, "")
    if not given:
        return MOST_BYTES
    if not given.isdecimal() or not int(given):
        message = f"{CACHE_BYTES_VARIABLE} must be a whole number of bytes above 0, not {given!r}"
        raise SettingsError(message)
    return int(given)


def mapped_inodes() -> frozenset[tuple[int, int]]:
    """Device and inode of each file that a process has mapped, as far as this one may know."""
    found = set()
    for maps in Path("/proc").glob("[0-9]*/maps"):
        with suppress(OSError, ValueError):
            for line in maps.read_text(errors="replace").splitlines():
                fields = line.split(maxsplit=5)  # address, mode, offset, device, inode, path
                if len(fields) > 5 and fields[4] != "0":  # noqa: PLR2004 - the columns of /proc
                    major, minor = (int(number, 16) for number in fields[3].split(":"))
                    found.add((os.makedev(major, minor), int(fields[4])))
    return frozenset(found)


@contextmanager
def _locked(path: str, how: int) -> Iterator[None]:
    """Hold the lock of a file within the block.

    Raises:
        OSError: There can be no lock.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
    try:
        fcntl.flock(descriptor, how)
        yield
    finally:
        os.close(descriptor)


def _write(path: str, data: Chunk) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(path, flags, FILE_MODE)
    try:
        write_all(descriptor, [data])
    finally:
        os.close(descriptor)


def _entry(entry: os.DirEntry[str], status: os.stat_result, at: float) -> _Entry:
    return _Entry(at, status.st_size, entry.path, (status.st_dev, status.st_ino))


def _status(entry: os.DirEntry[str]) -> os.stat_result | None:
    try:
        return entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return None


def _list(folder: str, wanted: Callable[[os.DirEntry[str]], bool]) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if wanted(entry)]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _files(folder: str) -> list[os.DirEntry[str]]:
    return _list(folder, lambda entry: entry.is_file(follow_symlinks=False))


def _folders(folder: str) -> list[str]:
    return [entry.path for entry in _list(folder, lambda each: each.is_dir(follow_symlinks=False))]


def _explain(path: str, error: OSError) -> str:
    message = explain_write(f"the cache {path}", error, doing="make")
    return f"{message.partition(', or choose')[0]}, or choose another with ASYNCFLOW_CACHE"
