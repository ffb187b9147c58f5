"""The threads of an engine, those of a worker, and the one in which a program reads journals.

Python's own `ThreadPoolExecutor` takes nothing more once the main thread has ended, though a thread
that is waited for may still run an engine. These take work for as long as they are not shut down.
"""

from __future__ import annotations

import os
from concurrent.futures import Executor, Future
from contextvars import Context
from queue import SimpleQueue
from threading import RLock, Thread
from typing import TYPE_CHECKING, Any, Final, TypeVar

from asyncflow.errors import AsyncflowError

if TYPE_CHECKING:
    from collections.abc import Callable

Result = TypeVar("Result")

_Work = tuple["Future[Any]", "Callable[[], Any]"]


class Threads(Executor):
    """Threads with a common name. Each is started when there is work for it."""

    def __init__(
        self, most: int, name: str, *, prepare: Callable[[], object] | None = None
    ) -> None:
        """Start no thread yet; `prepare` is what each calls first."""
        self._most, self._name, self._prepare = most, name, prepare
        self._queue: SimpleQueue[_Work | None] = SimpleQueue()
        self._threads: dict[Thread, Future[None]] = {}  # each with what tells that it ends
        self._unfinished = 0
        self._closed = False
        self._lock = RLock()

    def submit(
        self, function: Callable[..., Result], /, *args: Any, **kwargs: Any
    ) -> Future[Result]:
        """Have it called in one of the threads.

        Raises:
            RuntimeError: They were shut down.
            AsyncflowError: The system has no room for any of them.
        """
        future: Future[Result] = Future()

        def call() -> Result:
            try:
                return function(*args, **kwargs)
            finally:
                self._count_down()  # before anybody is told: who hands in more finds this one free

        with self._lock:
            if self._closed:
                message = f"the threads {self._name!r} were shut down"
                raise RuntimeError(message)
            self._unfinished += 1
            future.add_done_callback(self._on_done)
            self._queue.put((future, call))
            if len(self._threads) < min(self._most, self._unfinished):
                self._try_to_begin(future)
        return future

    def _try_to_begin(self, future: Future[Any]) -> None:
        try:
            self.begin()
        except AsyncflowError:
            if not self._threads:  # else those that there are have to do
                future.cancel()
                raise

    def begin(self) -> None:
        """Start one of the threads now.

        Raises:
            AsyncflowError: The system has no room for one.
        """
        # A daemon: an engine that is never closed does not keep the interpreter from ending.
        name = f"{self._name}_{len(self._threads)}"
        end: Future[None] = Future()
        work = self._queue, self._prepare, end
        thread = Thread(target=_carry_out, args=work, name=name, daemon=True)
        try:
            # It outlives whoever hands in the first work, and its context.
            Context().run(thread.start)
        except RuntimeError as error:
            raise no_thread(error) from None
        self._threads[thread] = end

    def close(self) -> list[Future[None]]:
        """Take nothing more; a future for each thread, done when all that was taken is."""
        with self._lock:
            if not self._closed:
                self._closed = True
                for _ in self._threads:
                    self._queue.put(None)
        return list(self._threads.values())

    def _on_done(self, future: Future[Any]) -> None:
        if future.cancelled():  # it will never be called
            self._count_down()

    def _count_down(self) -> None:
        with self._lock:
            self._unfinished -= 1

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002, ARG002 - as in the base class
        """Take nothing more; with `wait`, return when all that was taken is done."""
        self.close()
        if wait:
            for thread in self._threads:
                thread.join()

    def __del__(self) -> None:
        for _ in self._threads if not self._closed else ():
            self._queue.put(None)


_reading: Final[dict[int, Threads]] = {}  # by process: a forked one has not its parent's thread


def reading_thread() -> Threads:
    """The one thread in which this process reads journals and makes events for event loops.

    It computes nearly all the time, and several would be no quicker: each would only take the
    interpreter from the event loop for another while. It may outlive engines and event loops.
    """
    me = os.getpid()
    return _reading.get(me) or _reading.setdefault(me, Threads(1, "asyncflow-read"))


def is_lack_of_threads(error: BaseException) -> bool:
    """Whether it says that no thread can be started; Python has no class for it."""
    return isinstance(error, RuntimeError) and "start new thread" in str(error)


def no_thread(error: BaseException) -> AsyncflowError:
    """What to say when no thread can be started."""
    message = (
        f"this process cannot go on: {error}; let it have more memory or more threads, as with "
        "`ulimit -v unlimited` and `ulimit -u 4096`"
    )
    return AsyncflowError(message)


def _carry_out(
    queue: SimpleQueue[_Work | None],
    prepare: Callable[[], object] | None,
    end: Future[None],
) -> None:
    """What each thread does; it knows these alone, so that `Threads` can be dropped."""
    if prepare is not None:
        prepare()
    while (work := queue.get()) is not None:
        future, call = work
        if not future.set_running_or_notify_cancel():
            continue
        try:
            result = call()
        except BaseException as error:  # noqa: BLE001 - whoever waits for it gets it
            future.set_exception(error)
        else:
            future.set_result(result)
            del result
        del work, future, call  # nothing is kept alive while there is nothing to do
    end.set_result(None)
