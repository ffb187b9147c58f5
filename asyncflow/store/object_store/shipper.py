"""Sends what growing files have to the object store, in the background and in order.

One thread looks four times a second which of the files have something new, and a few others make
the requests. A file is sent by one of them at a time: while a put is under way, what comes in waits
and is sent together with the next one.
"""

from __future__ import annotations

from contextlib import suppress
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING, Final, Protocol

from asyncflow._support.thread_pool import Threads, no_thread

if TYPE_CHECKING:
    from concurrent.futures import Future

SHIP_SECONDS: Final = 0.25
"""The least time between two pieces of a file; a lost machine loses that and the time of a put."""
_THREADS: Final = 16
_LOOK_SECONDS: Final = 1.0  # for what is due without being new, such as a claim


class Cargo(Protocol):
    """A file that grows here, and is sent to the store."""

    def is_due(self) -> bool:
        """Whether there is something to send."""

    def ship(self) -> None:
        """Send what there is. Errors are kept for whoever waits; none is raised."""

    def finish(self) -> None:
        """Send what is left, of a file that grows no more; the same."""


class Shipper:
    """Sends the files of one process to one store; threads may share it."""

    def __init__(self) -> None:
        """Start no thread yet."""
        self._cargoes: set[Cargo] = set()
        self._busy: dict[Cargo, Future[None]] = {}
        self._finishing: list[Future[None]] = []
        self._threads = Threads(_THREADS, "asyncflow-ship")
        self._thread: Thread | None = None
        self._news = Event()
        self._closed = Event()
        self._lock = Lock()

    def __repr__(self) -> str:
        return f"<Shipper of {len(self._cargoes)} files>"

    def add(self, cargo: Cargo) -> None:
        """Send this file from now on.

        Raises:
            AsyncflowError: The system cannot start a thread.
        """
        with self._lock:
            self._cargoes.add(cargo)
            if self._thread is None:
                thread = Thread(target=self._look_after, name="asyncflow-shipper", daemon=True)
                try:
                    thread.start()
                except RuntimeError as error:
                    raise no_thread(error) from None
                self._thread = thread

    def tell(self) -> None:
        """One of the files has something new."""
        self._news.set()

    def finish(self, cargo: Cargo) -> None:
        """Send the rest of a file that grows no more, and forget it. Does not wait."""
        with self._lock:
            self._cargoes.discard(cargo)
            self._finishing = [each for each in self._finishing if not each.done()]
            self._finishing.append(self._threads.submit(cargo.finish))

    def close(self) -> None:
        """Return when everything was sent, or has failed; harmless when repeated."""
        with self._lock:
            self._closed.set()
            finishing, thread = [*self._finishing], self._thread
        self._news.set()
        if thread is not None:
            thread.join()
        for each in finishing:
            each.exception()
        self._threads.shutdown()

    def _look_after(self) -> None:
        while not self._closed.is_set():
            self._news.wait(_LOOK_SECONDS)
            self._news.clear()
            with self._lock:
                self._busy = {each: done for each, done in self._busy.items() if not done.done()}
                for cargo in self._cargoes:
                    if cargo.is_due() and cargo not in self._busy:
                        with suppress(RuntimeError):  # it is closing
                            self._busy[cargo] = self._threads.submit(self._ship, cargo)
            self._closed.wait(SHIP_SECONDS)

    def _ship(self, cargo: Cargo) -> None:
        cargo.ship()
        if cargo.is_due():
            self._news.set()
