"""Stores what a generator yields for a foreach, and reports it while it still yields.

The items are stored twice: in chunks, for the tasks that begin meanwhile, and as the whole list
that the artifact is in the end. A chunk is reported once it is stored: the first item at once, and
then all items of some milliseconds together. If the generator takes its time, a thread reports what
there is.
"""

from __future__ import annotations

import signal
import time
from threading import Condition, Thread
from typing import TYPE_CHECKING, Final, Self

from asyncflow.codec import Encoded, ItemsEncoder
from asyncflow.codec.items import item_digest
from asyncflow.events.manifests import pack_ref
from asyncflow.values import Encoding
from asyncflow.workers.messages import ITEMS_AHEAD, AttemptKey, Yielded
from asyncflow.workers.process.stop_signals import block_stop_signals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from asyncflow.store.artifacts import ArtifactWriter
    from asyncflow.store.value_interface import GoOn
    from asyncflow.values import ArtifactRef

_CHUNK_ITEMS: Final = 64
_CHUNK_BYTES: Final = 256 << 10
_CHUNK_SECONDS: Final = 0.02  # an item waits for others no longer than this
_PULL_SECONDS: Final = 0.02  # a thread is needed for other tasks, too


class ItemStream:
    """What one attempt's generator yields. Use it in a `with` block."""

    def __init__(
        self,
        name: str,
        key: AttemptKey,
        writer: ArtifactWriter,
        manifest: bytes,
        *,
        tell: Callable[[Yielded], None],
        go_on: GoOn,
    ) -> None:
        """Store nothing yet.

        Args:
            name: That of the artifact, for errors.
            key: The attempt.
            writer: Stores the items.
            manifest: What the tasks for the items inherit.
            tell: Sends a report; it may be called in a thread.
            go_on: Raises once the items are no longer wanted.
        """
        self._key, self._writer, self._manifest = key, writer, manifest
        self._tell, self._go_on = tell, go_on
        self._whole = writer.begin_items(ItemsEncoder(list, name), go_on)
        self._part = self._whole.encoder.part()
        self._waiting: list[bytes] = []  # of this part
        self._digests = bytearray()  # of its items
        self._first = 0  # the index of this part's first item
        self._told_at = float("-inf")
        self._upto = ITEMS_AHEAD
        self._changed = Condition()
        self._thread: Thread | None = None
        self._error: BaseException | None = None  # of the thread
        self._closed = False

    def __enter__(self) -> Self:
        self._whole.__enter__()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()
        self._whole.__exit__(exc_type, exc, traceback)

    @property
    def count(self) -> int:
        """How many items there are so far."""
        return self._whole.encoder.count

    @property
    def is_ahead(self) -> bool:
        """Whether the generator has to wait until `allow` is called, as all items are told."""
        return self.count >= self._upto

    def allow(self, upto: int) -> None:
        """Let the generator have yielded so many items in all."""
        self._upto = max(self._upto, upto)

    def add(self, item: object) -> None:
        """Store one more item, and report it now or soon.

        Raises:
            ArtifactPickleError: The item cannot be pickled.
            StoreError: It cannot be written.
        """
        with self._changed:
            self._raise_of_thread()
            whole, part = self._whole, self._part
            encoded, text = whole.encoder.encode(item), whole.encoder.text_of(item)
            for batch in whole.encoder.add_encoded(encoded, text):
                whole.write(batch)
            for batch in part.add_encoded(encoded, text):
                self._waiting += batch
            self._digests += item_digest(encoded)
            is_full = part.count >= _CHUNK_ITEMS or part.size >= _CHUNK_BYTES
            if is_full or self.is_ahead or time.monotonic() - self._told_at >= _CHUNK_SECONDS:
                self._flush()
            elif part.count == 1:
                self._flush_soon()

    def pull(self, items: Iterator[object]) -> bool:
        """Add items until the time of a turn is over or `is_ahead`; False if there are no more."""
        until = time.monotonic() + _PULL_SECONDS
        for item in items:
            self.add(item)
            if self.is_ahead or time.monotonic() > until:
                return True
        return False

    def finish(self) -> ArtifactRef:
        """Report the last items, and store the whole list."""
        with self._changed:
            self._raise_of_thread()
            self._flush()
        return self._whole.finish()

    def _flush(self) -> None:
        part = self._part
        if not part.count:
            return
        self._go_on()
        self._waiting += part.finish()
        value = Encoded(Encoding.ITEMS, [*self._waiting], part.size, part.type_name)
        ref = self._writer.put_encoded(value)
        self._writer.sync()
        manifest = b"" if self._first else self._manifest
        what = pack_ref(ref), manifest, bytes(self._digests)
        self._tell(Yielded(self._key, self._first, part.count, *what))
        self._told_at = time.monotonic()
        self._first += part.count
        self._part, self._waiting = self._whole.encoder.part(), []
        self._digests.clear()

    # --- if the generator takes its time ---

    def _flush_soon(self) -> None:
        if self._thread is None:
            self._thread = Thread(target=self._flush_late, name="asyncflow-items", daemon=True)
            mask = block_stop_signals()  # those are for the thread that runs the step
            try:
                self._thread.start()
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        self._changed.notify()

    def _flush_late(self) -> None:
        with self._changed:
            while not self._closed and self._error is None:
                left = self._told_at + _CHUNK_SECONDS - time.monotonic()
                if not self._part.count:
                    self._changed.wait()
                elif left > 0:
                    self._changed.wait(left)
                else:
                    try:
                        self._flush()
                    except BaseException as error:  # noqa: BLE001 - raised in the step's own thread
                        self._error = error

    def _raise_of_thread(self) -> None:
        if self._error is not None:
            raise self._error

    def __repr__(self) -> str:
        return f"<ItemStream of {self.count} items, may yield up to {self._upto}>"
