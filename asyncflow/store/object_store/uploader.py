"""Uploads what the processes of a node have written into its cache.

Segments go as *packs*: pieces of the node's segment of a run, see `pieces`. A pack is put when it
has `PACK_BYTES`, or when nothing was added to it for a moment, or at once if nobody is at work who
could add something. So a value that somebody waits for is on its way soon, and values that come one
after the other share a request. Blobs go one by one,
by their hash, unless the store has them.

Everything here is done in threads, which begin with the first upload.
"""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from concurrent.futures import wait
from threading import Condition, Thread
from typing import TYPE_CHECKING, Final

from asyncflow._support import log
from asyncflow._support.commit_points import reached
from asyncflow._support.fork_safety import no_forks
from asyncflow._support.thread_pool import Threads, no_thread
from asyncflow.errors import AsyncflowError, StoreError
from asyncflow.store.blobs import TOUCH_SECONDS
from asyncflow.store.object_store.piece_file import append_packed
from asyncflow.store.object_store.pieces import WRITER_BYTES, pack_header
from asyncflow.store.object_store.value_source import blob_name

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from asyncflow.codec import Chunk
    from asyncflow.store.object_store.node_cache import NodeCache
    from asyncflow.store.object_store.objects import Objects

PACK_BYTES: Final = 4 << 20
_QUIET_SECONDS: Final = 0.03  # a pack is put when nothing was added for so long,
_OLD_SECONDS: Final = 0.15  # or when the first of its values has waited for so long
_PACKS: Final = 4  # are put at the same time
_BLOBS: Final = 4  # likewise
_KNOWN_BLOBS: Final = 65_536  # that the store has
_FRESH_SECONDS: Final = TOUCH_SECONDS / 2
"""So long after it was put, a blob need not be put again to count as new for a collection."""
_IDLE_SECONDS: Final = 60.0  # after that the file of a segment is closed
_FORGOTTEN_SECONDS: Final = 3600.0
"""After that it is not known any more how much of it is stored: the store tells, if it matters."""
_CLOSE_SECONDS: Final = 5.0  # for uploads that nobody waits for any more


class Upload:
    """Something that is being uploaded: done when it is in the store, or has failed."""

    __slots__ = ("_left", "blobs", "end", "error", "segment", "since")

    def __init__(self, segment: str, end: int, blobs: Sequence[bytes]) -> None:
        self.segment, self.end, self.blobs = segment, end, blobs
        self.since = time.monotonic()
        self.error = ""
        """Why it failed; empty if it did not."""
        self._left = len(blobs) + (end > 0)

    @property
    def is_done(self) -> bool:
        """Whether it has ended, well or not."""
        return self._left <= 0

    def part_done(self, error: str = "") -> None:
        """One of its parts is in the store, or cannot be."""
        self.error = self.error or error
        self._left -= 1


class Uploader:
    """Uploads for one node. Threads may share it."""

    def __init__(self, cache: NodeCache, objects: Objects, node: str) -> None:
        """Start nothing.

        Raises:
            StoreError: The cache cannot be used.
        """
        self._cache, self._objects, self.node = cache, objects, node
        self._lock = cache.hold_node(node)
        self._writer = os.urandom(WRITER_BYTES)
        self._changed = Condition()
        self._segments: dict[str, _Segment] = {}
        self._blobs: dict[bytes, list[Upload]] = {}  # that are being put
        self._known: OrderedDict[bytes, float] = OrderedDict()  # since when the store has them
        self._listeners: list[Callable[[], None]] = []
        self._thread: Thread | None = None
        self._packs = Threads(_PACKS, "asyncflow-packs")
        self._blob_threads = Threads(_BLOBS, "asyncflow-blobs")
        self._spare: list[bytearray] = []  # memory for packs, which the kernel need not clear again
        self._putting = 0
        self._looks_at = 0.0  # when the thread looks again for what is due
        self._closed = False
        self.waiting_bytes = 0
        """About how many bytes wait to be stored."""

    def __repr__(self) -> str:
        return f"<Uploader {self.node} {self.waiting_bytes} bytes>"

    def listen(self, listener: Callable[[], None]) -> None:
        """Call this, in some thread, whenever an upload may have ended."""
        self._listeners.append(listener)

    def add(self, segment: str, end: int, blobs: Sequence[bytes]) -> Upload:
        """Have a segment stored up to `end`, and these blobs; see `Tell`. Returns at once.

        Raises:
            StoreError: This was closed.
            AsyncflowError: The system cannot start the thread.
        """
        upload = Upload(segment, end, blobs)
        with self._changed:
            if self._closed:
                raise StoreError(_CLOSED)
            self._begin()
            if end:
                found = self._segments.get(segment)
                if found is None:
                    found = self._segments[segment] = _Segment(self._cache.folder, segment)
                self.waiting_bytes += found.add(upload)
                is_full = found.waiting >= PACK_BYTES and self._putting < _PACKS
                if is_full or self._looks_at > found.due:
                    self._changed.notify_all()
            for digest in blobs:
                self._add_blob(digest, upload)
        return upload

    def hurry(self) -> None:
        """Put what waits now, unless a pack that was put so is on its way.

        So tasks that come one by one, and not one after the other, share packs all the same.
        """
        with self._changed:
            for segment in self._segments.values():
                segment.hurry()
            self._changed.notify_all()

    def upload(self, segment: str, end: int, blobs: Sequence[bytes]) -> None:
        """The same, and wait until it is done.

        Raises:
            StoreError: It cannot be stored.
        """
        upload = self.add(segment, end, blobs)
        with self._changed:
            self._changed.wait_for(lambda: upload.is_done)
        if upload.error:
            raise StoreError(upload.error)

    def close(self) -> None:
        """Upload nothing more, and end the threads. Harmless when repeated."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()
        ends = [*self._packs.close(), *self._blob_threads.close()]
        _, going_on = wait(ends, timeout=_CLOSE_SECONDS)  # daemons, if the store does not answer
        with self._changed:
            for segment in self._segments.values():
                segment.fail(_CLOSED)
                if not going_on:
                    segment.close()
            for uploads in self._blobs.values():
                for upload in uploads:
                    upload.part_done(_CLOSED)
            self._changed.notify_all()
        self._lock.close()
        self._tell()

    # --- packs ----------------------------------------------------------------------------------

    def _begin(self) -> None:
        if self._thread is None:
            with no_forks():
                thread = Thread(target=self._run, name="asyncflow-upload", daemon=True)
                try:
                    thread.start()
                except RuntimeError as error:
                    raise no_thread(error) from None
                self._thread = thread

    def _run(self) -> None:
        with self._changed:
            while not self._closed:
                pause = _IDLE_SECONDS
                for segment in list(self._segments.values()):
                    try:
                        pause = min(pause, self._send(segment))
                    except (OSError, AsyncflowError) as error:  # its file is gone, or no thread
                        self.waiting_bytes -= segment.fail(str(error))
                        self._changed.notify_all()
                        self._tell()
                self._looks_at = time.monotonic() + pause
                self._changed.wait(pause)
                self._looks_at = 0.0

    def _send(self, segment: _Segment) -> float:
        """Put a pack of a segment if it is time; return after how many seconds to look again."""
        now = time.monotonic()
        if not segment.waits:
            if now - segment.changed > _IDLE_SECONDS and not segment.is_putting:
                segment.close()
                if now - segment.changed > _FORGOTTEN_SECONDS:
                    del self._segments[segment.name]
            return _IDLE_SECONDS
        if self._putting >= _PACKS:
            return _IDLE_SECONDS  # until one has ended
        due = segment.due
        if due > now and segment.waiting < PACK_BYTES:
            return due - now
        if (
            segment.is_putting
            and not segment.is_hurried
            and segment.waiting < PACK_BYTES
            and now < segment.first + _OLD_SECONDS
        ):
            return segment.first + _OLD_SECONDS - now
        begin, end = segment.take(PACK_BYTES)
        try:
            self._packs.submit(self._put_pack, segment, begin, end)
        except AsyncflowError as error:
            self.waiting_bytes -= segment.put(begin, end, begin, str(error))
            raise
        self._putting += 1
        return 0.0 if segment.waiting > 0 else _IDLE_SECONDS

    def _put_pack(self, segment: _Segment, begin: int, end: int) -> None:
        stored = begin
        error: str = ""
        try:
            memory = self._spare.pop() if self._spare else bytearray(PACK_BYTES)
            data = memoryview(memory)[: end - begin]
            segment.read(begin, data)
            packed: list[Chunk] = [pack_header(begin, self._writer, end - begin), data]
            reached("pack.put")
            there = append_packed(self._objects, segment.name, begin, packed)
            reached("pack.stored")
            if there is None:
                stored = end
                self._spare.append(memory)  # after an error, a request may still read it
            elif there.writer == self._writer and bytes(data).startswith(there.data):
                stored = there.end  # an earlier try, which may have had fewer bytes
            else:
                error = f"{segment.name} was written to by somebody else at {begin}"
        except (OSError, AsyncflowError) as failure:
            error = str(failure)
        except BaseException as failure:
            error = f"{type(failure).__name__}: {failure}"
            raise
        finally:
            with self._changed:
                self._putting -= 1
                self.waiting_bytes -= segment.put(begin, end, stored, error)
                self._changed.notify_all()
            self._tell()
        if error:
            log.warning("a pack could not be stored", file=segment.name, error=error)

    # --- blobs ----------------------------------------------------------------------------------

    def _add_blob(self, digest: bytes, upload: Upload) -> None:
        others = self._blobs.get(digest)
        if others is not None:
            others.append(upload)
        elif time.monotonic() - self._known.get(digest, float("-inf")) < _FRESH_SECONDS:
            self._cache.unset_pending(self.node, digest)
            upload.part_done()
        else:
            try:
                size = self._cache.local.blob_size(digest)
                self._blob_threads.submit(self._put_blob, digest, size)
            except (OSError, AsyncflowError) as error:
                upload.part_done(str(error))
                return
            self._blobs[digest] = [upload]
            self.waiting_bytes += size

    def _put_blob(self, digest: bytes, size: int) -> None:
        error = ""
        try:
            since = time.monotonic() - self._age(digest, size)
            if time.monotonic() - since >= _FRESH_SECONDS:
                since = time.monotonic()
                reached("blob.put")
                self._objects.put_file(blob_name(digest), self._cache.local.blob(digest))
                reached("blob.stored")
        except (OSError, AsyncflowError) as failure:
            error = str(failure)
        except BaseException as failure:
            error = f"{type(failure).__name__}: {failure}"
            raise
        finally:
            with self._changed:
                self.waiting_bytes -= size
                if not error:
                    self._known[digest] = since
                    while len(self._known) > _KNOWN_BLOBS:
                        self._known.popitem(last=False)
                    self._cache.unset_pending(self.node, digest)
                for upload in self._blobs.pop(digest, ()):
                    upload.part_done(error)
                self._changed.notify_all()
            self._tell()
        if error:
            log.warning("a value could not be stored", blob=digest.hex(), error=error)
        else:
            self._cache.note_added(size)
            self._cache.make_room_soon()

    def _age(self, digest: bytes, size: int) -> float:
        """How many seconds ago the store was given a blob; infinite if it has it not."""
        try:
            facts = self._objects.head(blob_name(digest))
        except FileNotFoundError:
            return float("inf")
        return time.time() - facts.modified if facts.size == size else float("inf")

    def _tell(self) -> None:
        for listener in self._listeners:
            listener()


_CLOSED: Final = "it was not uploaded before the engine was closed"


class _Segment:
    """A segment that is uploaded: which of its bytes are stored, and who waits for more.

    Its owner has a lock around everything but `read`.
    """

    def __init__(self, folder: str, name: str) -> None:
        self.name: Final = name
        self._path: Final = f"{folder}/{name}"
        self._fd = -1
        self._next = 0  # bytes before are stored, or on their way
        self._stored = 0  # bytes before are stored
        self._parts: dict[int, int] = {}  # stored behind others that are not: their ends
        self._taken: set[int] = set()  # where packs on their way begin
        self._early = -1  # where the one of them begins that was put because of `hurry`
        self.is_hurried = False
        """Whether what waits is to be on its way now."""
        self._uploads: list[Upload] = []
        self._wanted = 0
        self.changed = time.monotonic()
        """When somebody has asked for more last."""
        self.first = 0.0
        """Since when somebody has waited for bytes that are not on their way."""

    @property
    def waits(self) -> bool:
        """Whether somebody waits for bytes that are not on their way."""
        return self._wanted > self._next

    @property
    def waiting(self) -> int:
        """How many bytes those are."""
        return self._wanted - self._next

    @property
    def is_putting(self) -> bool:
        """Whether packs are on their way."""
        return bool(self._taken)

    @property
    def due(self) -> float:
        """When they should be on their way."""
        if self.is_hurried:
            return 0.0
        return min(self.changed + _QUIET_SECONDS, self.first + _OLD_SECONDS)

    def add(self, upload: Upload) -> int:
        """Somebody waits for the bytes up to some end; return how many these are more."""
        if upload.end <= self._stored:
            upload.part_done()
            return 0
        self._uploads.append(upload)
        self.changed = upload.since
        more = max(0, upload.end - self._wanted)
        if more and not self.waits:
            self.first = upload.since
        self._wanted += more
        return more

    def hurry(self) -> None:
        """Have what waits put now, if something does and no pack that was put so is on its way."""
        if self.waits and self._early < 0:
            self.is_hurried = True

    def take(self, most: int) -> tuple[int, int]:
        """The next bytes to be put: begin and end."""
        if self._fd < 0:
            self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        begin = self._next
        # All that is written, because the others will be asked for in a moment.
        end = min(max(self._wanted, os.fstat(self._fd).st_size), begin + most)
        self._next = end
        self._taken.add(begin)
        if self.is_hurried and not self.waits:
            self._early, self.is_hurried = begin, False
        self.first = time.monotonic()
        return begin, end

    def read(self, begin: int, into: memoryview) -> None:
        """Read the bytes from there on.

        They are not mapped: where the disk fails, this raises an error, and a mapping would end the
        process.

        Raises:
            StoreError: The file ends before.
        """
        at = 0
        while at < len(into):
            part = os.preadv(self._fd, [into[at:]], begin + at)
            if not part:
                message = f"{self._path} has become shorter"
                raise StoreError(message)
            at += part

    def put(self, begin: int, end: int, stored: int, error: str) -> int:
        """A pack has ended: stored up to there. Return how many bytes wait no more."""
        self._taken.discard(begin)
        if begin == self._early:
            self._early = -1
        before = min(self._wanted, self._stored)
        if stored > begin:
            self._parts[begin] = stored
        while self._stored in self._parts:
            self._stored = self._parts.pop(self._stored)
        if stored < end:
            # Go on from there. What is stored behind may be put again, in packs of other lengths.
            self._next = max(min(self._next, stored), self._stored)
        self._parts = {at: to for at, to in self._parts.items() if at >= self._stored}
        done = [upload for upload in self._uploads if upload.end <= self._stored]
        self._uploads = [upload for upload in self._uploads if upload.end > self._stored]
        for upload in done:
            upload.part_done()
        if error:
            return min(self._wanted, self._stored) - before + self.fail(error)
        return min(self._wanted, self._stored) - before

    def fail(self, error: str) -> int:
        """Nobody need wait any more. Return how many bytes wait no more."""
        for upload in self._uploads:
            upload.part_done(error)
        self._uploads, self.is_hurried = [], False
        given_up, self._wanted = max(0, self._wanted - self._stored), self._stored
        return given_up

    def close(self) -> None:
        """Close its file."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1  # never closed twice
            os.close(fd)
