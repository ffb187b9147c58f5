"""Ends a worker as Python ends a process, but within a limited time.

A worker is forked, so it leaves by `os._exit`, as the children of multiprocessing do: the program
that it was forked from owns its objects and finalizes them. What belongs to the worker is finalized
here, in Python's order. Threads are waited for. The functions that were registered with `atexit`
are called; they remove temporary folders, and the semaphores of multiprocessing and joblib. Files
that are still open are closed.
"""

from __future__ import annotations

import atexit
import gc
import io
import os
import sys
import threading
import time
import weakref
from _io import _IOBase
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from asyncflow._support.tracebacks import describe_exception
from asyncflow.workers.process.thread_context import threads_left

if TYPE_CHECKING:
    from collections.abc import Callable

    Complain = Callable[[str, dict[str, Any]], object]

_THREADS_SECONDS: Final = 1.0
_SECONDS: Final = 5.0  # for all steps together: an engine that closes waits a little longer
_LOOK_SECONDS: Final = 0.005


def disown() -> None:
    """Leave functions that the program registered for its end, before the fork, to the program.

    Its temporary folders, for example, are still in use there.
    """
    atexit._clear()  # noqa: SLF001 - as multiprocessing does in its children
    finalize: Any = weakref.finalize
    finalize._registry.clear()  # noqa: SLF001 - there is no other way
    finalize._registered_with_atexit = False  # noqa: SLF001 - the first one here registers it anew
    logging = sys.modules.get("logging")
    if logging is not None:
        atexit.register(logging.shutdown)
    util: Any = sys.modules.get("multiprocessing.util")
    if util is not None:
        sys.modules["multiprocessing.process"]._children.clear()  # noqa: SLF001 - as multiprocessing does
        util._finalizer_registry.clear()  # noqa: SLF001 - as multiprocessing does
        util._run_after_forkers()  # noqa: SLF001 - as multiprocessing does
        atexit.register(util._exit_function)  # noqa: SLF001 - as multiprocessing does


def finalize(complain: Complain, *closings: Callable[[], object]) -> None:
    """Finalize what this worker's steps have left, after calling the `closings`.

    `complain` gets each failure. If finalizing takes too long, `complain` gets that, too, and the
    process ends here.
    """
    limit = threading.Thread(target=_end_late, args=(complain,), daemon=True)
    limit.start()
    for close in closings:
        close()
    sys.unraisablehook = lambda args: _tell(complain, args.exc_value)
    _wait_for_threads()
    for thread, task in threads_left():
        facts = {"thread": thread, "started_by": task}
        complain("a thread was still running when its worker ended", facts)
    atexit._run_exitfuncs()  # noqa: SLF001 - as multiprocessing does from Python 3.13 on
    _close_files(complain)


def _tell(complain: Complain, error: BaseException | None) -> None:
    if error is not None:
        described = describe_exception(error)
        facts = {"error": f"{described.type}: {described.message}"}
        complain("the finalization of a worker has failed in part", facts)


def _end_late(complain: Complain) -> None:
    time.sleep(_SECONDS)
    frame = sys._current_frames().get(threading.main_thread().ident or 0)  # noqa: SLF001 - documented
    where = f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame is not None else "unknown"
    facts = {"seconds": _SECONDS, "line": where}
    complain("the finalization of a worker has taken too long, and is given up", facts)
    os._exit(0)


def _wait_for_threads() -> None:
    """Wait for threads that are not daemons, as Python does, but not for long."""
    asked: Any = threading._threading_atexits  # type: ignore[attr-defined] # noqa: SLF001 - executors end by these
    if threading.active_count() <= 2 and not asked:  # noqa: PLR2004 - this thread, and the one that limits the time
        return
    done = threading.Event()

    def ask() -> None:
        for call in reversed(asked):
            call()
        done.set()

    threading.Thread(target=ask, daemon=True).start()
    until = time.monotonic() + _THREADS_SECONDS
    while (not done.is_set() or threads_left()) and time.monotonic() < until:
        time.sleep(_LOOK_SECONDS)


def flush_files() -> None:
    """Flush the program's files before a fork, so that no child writes their buffers.

    At its end a worker flushes these files, because its steps may have written to them.
    """
    _inherited[:] = []
    for file in _files():
        with suppress(Exception):  # the file is the program's, and so is the error
            if not _is_peculiar(file) and not file.closed and file.writable():
                file.flush()
                _inherited.append(weakref.ref(file))


_inherited: Final[list[weakref.ref[_IOBase]]] = []
"""Files that were open when this process was forked."""


def _files() -> list[_IOBase]:
    """File objects, except those that the garbage collector ignores."""
    # Not `io.IOBase`: to ask an abstract class takes ten times as long, 8 ms of a start.
    return [each for each in gc.get_objects() if issubclass(type(each), _IOBase)]


def _close_files(complain: Complain) -> None:
    """Close files, so that buffered data and trailers are written."""
    found = [*_files(), *(file for each in _inherited if (file := each()) is not None)]
    for file in sorted(found, key=_rank):
        try:
            if not file.closed and file.writable():
                file.flush()
            if _is_peculiar(file):
                file.close()
        except Exception as error:  # noqa: BLE001 - a class of the user's may raise anything
            _tell(complain, error)


def _rank(file: _IOBase) -> int:
    """The place of a file in the order of closing: first those that write into other files."""
    return 0 if isinstance(file, io.TextIOBase) else 1 if _is_peculiar(file) else 2


def _is_peculiar(file: _IOBase) -> bool:
    """Whether closing it may write a trailer: a file that is neither Python's own nor ours."""
    module = type(file).__module__
    return module not in {"_io", "io"} and not module.startswith("asyncflow.")
