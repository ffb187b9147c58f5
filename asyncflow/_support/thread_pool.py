"""The threads of an engine, those of a worker, and the one in which a program reads journals.

Python's own `ThreadPoolExecutor` accepts no work once the main thread has ended, though another
thread may still run an engine. These threads accept work until they are shut down.
"""

from __future__ import annotations

import os
from concurrent.futures import Executor, Future
from contextvars import Context
from queue import SimpleQueue
from threading import RLock, Thread, current_thread
from typing import TYPE_CHECKING, Any, Final, TypeVar

from asyncflow._support.sure_condition import SureCondition
from asyncflow.errors import AsyncflowError

if TYPE_CHECKING:
    from collections.abc import Callable

Result = TypeVar("Result")

_Work = tuple["Future[Any]", "Callable[[], Any]"]


class SureFuture(Future[Result]):
    """A future whose lock no exception from a signal handler leaves locked.

    Else the thread that carries out the work might wait for the lock for ever, see `SureCondition`.
    """

    def __init__(self) -> None:
        """Wait for nothing yet."""
        super().__init__()
        self._condition = SureCondition()  # as much of one as futures use


class Threads(Executor):
    """Threads with a common name. Each is started when there is work for it."""

    def __init__(
        self, most: int, name: str, *, prepare: Callable[[], object] | None = None
    ) -> None:
        """Start no thread yet; each thread calls `prepare` first."""
        self._most, self._name, self._prepare = most, name, prepare
        self._queue: SimpleQueue[_Work | None] = SimpleQueue()
        # The future of a thread is done when the thread ends.
        self._threads: dict[Thread, Future[None]] = {}
        self._unfinished = 0
        self._closed = False
        self._lock = RLock()

    def submit(
        self, function: Callable[..., Result], /, *args: Any, **kwargs: Any
    ) -> Future[Result]:
        """Call the function in one of the threads.

        Raises:
            RuntimeError: They were shut down.
            AsyncflowError: The system cannot start any of them.
        """
        future: Future[Result] = SureFuture()

        def call() -> Result:
            try:
                return function(*args, **kwargs)
            finally:
                self._count_down()  # before the result: a caller may submit more on hearing it

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
            if not self._threads:  # the threads that there are have to do
                future.cancel()
                raise

    def begin(self) -> None:
        """Start one of the threads now.

        Raises:
            AsyncflowError: The system cannot start one.
        """
        # A daemon: an engine that is never closed does not keep the interpreter from ending.
        name = f"{self._name}_{len(self._threads)}"
        end: Future[None] = SureFuture()
        work = self._queue, self._prepare, self._threads, end
        thread = Thread(target=_carry_out, args=work, name=name, daemon=True)
        try:
            # It outlives the caller that submits the first work, and must not keep its context
            # alive.
            Context().run(thread.start)
        except RuntimeError as error:
            raise no_thread(error) from None
        self._threads[thread] = end

    def close(self) -> list[Future[None]]:
        """Accept no more work; return a future per thread, done when all accepted work is done."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._queue.put(None)
        return list(self._threads.values())

    def _on_done(self, future: Future[Any]) -> None:
        if future.cancelled():  # it will never be called
            self._count_down()

    def _count_down(self) -> None:
        with self._lock:
            self._unfinished -= 1

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002, ARG002 - as in the base class
        """Accept no more work; with `wait`, return when all accepted work is done."""
        self.close()
        if wait:
            for thread in list(self._threads):
                thread.join()

    def __del__(self) -> None:
        if not self._closed:
            self._queue.put(None)


_reading: Final[dict[int, Threads]] = {}  # by process: a forked child has not its thread


def reading_thread() -> Threads:
    """The one thread in which this process reads journals and makes events for event loops.

    It computes nearly all the time, so several would be no faster: each would only take the
    interpreter from the event loop for longer. It may outlive engines and event loops.
    """
    me = os.getpid()
    return _reading.get(me) or _reading.setdefault(me, Threads(1, "asyncflow-read"))


def is_lack_of_threads(error: BaseException) -> bool:
    """Whether the error says that no thread can be started; Python has no class for it."""
    return isinstance(error, RuntimeError) and "start new thread" in str(error)


def no_thread(error: BaseException) -> AsyncflowError:
    """The error to raise when no thread can be started."""
    message = (
        f"this process cannot go on: {error}; let it have more memory or more threads, as with "
        "`ulimit -v unlimited` and `ulimit -u 4096`"
    )
    return AsyncflowError(message)


def _carry_out(
    queue: SimpleQueue[_Work | None],
    prepare: Callable[[], object] | None,
    threads: dict[Thread, Future[None]],
    end: Future[None],
) -> None:
    """What each thread runs; it has no reference to `Threads`, so that those can be dropped."""
    # A signal handler may have broken off the call that has started this thread.
    threads[current_thread()] = end
    if prepare is not None:
        prepare()
    while (work := queue.get()) is not None:
        future, call = work
        if not future.set_running_or_notify_cancel():
            continue
        try:
            result = call()
        except BaseException as error:  # noqa: BLE001 - the future carries it to its reader
            future.set_exception(error)
        else:
            future.set_result(result)
            del result
        del work, future, call  # keep nothing alive while idle
    queue.put(None)  # the next thread ends, too, however many there are
    end.set_result(None)
