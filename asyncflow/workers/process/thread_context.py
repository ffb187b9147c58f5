"""Threads that a step starts have the step's context.

Python 3.14 has `sys.flags.thread_inherit_context`; this module can go when that is the oldest
supported version.
"""

from __future__ import annotations

import functools
import sys
from contextlib import contextmanager
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from asyncflow.flow.current import TaskContext, _task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future, ThreadPoolExecutor
    from threading import ExceptHookArgs, Thread
    from types import FrameType


# --- threads ----------------------------------------------------------------------------------

_INSTALLED: Final = "_asyncflow_installed"


_started_by: Final[WeakKeyDictionary[Thread, TaskContext]] = WeakKeyDictionary()


_LAID_OFF: Final = ("concurrent.futures", "anyio", "loky", "joblib.externals.loky")
"""Packages whose threads wait for more work when they have done what a step asked of them."""


def threads_left() -> list[tuple[str, str]]:
    """The threads that still work: name, and the task that started each.

    Without daemons: a daemon thread may end with its process.
    """
    threading = sys.modules["threading"]
    frames = sys._current_frames()  # noqa: SLF001 - documented, in spite of its name
    found = []
    for thread in threading.enumerate():
        frame = frames.get(thread.ident)
        is_main = thread is threading.main_thread()
        if frame and not (is_main or thread.daemon or _waits_for_work(thread, frame)):
            task = _started_by.get(thread)
            found.append((thread.name, task.pathspec if task is not None else "no task"))
    return found


def _waits_for_work(thread: Thread, frame: FrameType) -> bool:
    if type(thread).__module__.startswith(_LAID_OFF):
        return True
    executors = sys.modules.get("concurrent.futures.thread")
    code = frame.f_code
    is_executors = executors is not None and code.co_filename == executors.__file__
    # otherwise its context is the one it was given
    return is_executors and code.co_name == "_worker"


def install_thread_propagation() -> None:
    """Run the threads that a step starts in the step's context, in this process, for good.

    For worker processes: it replaces `Thread.start` and `ThreadPoolExecutor.submit`. Harmless when
    repeated.
    """
    import threading

    _replace(threading.Thread, "start", _starting)
    _replace(threading, "excepthook", _excepting)


@contextmanager
def thread_propagation() -> Iterator[None]:
    """The same within the block alone, for a process that has threads of its own as well."""
    import threading

    was_installed = hasattr(threading.Thread.start, _INSTALLED)
    install_thread_propagation()
    try:
        yield
    finally:
        if not was_installed:
            executors = sys.modules.get("concurrent.futures.thread")
            _put_back(threading.Thread, "start")
            _put_back(threading, "excepthook")
            if executors is not None:
                _put_back(executors.ThreadPoolExecutor, "submit")


def _put_back(owner: Any, name: str) -> None:
    installed = getattr(owner, name)
    if hasattr(installed, _INSTALLED):
        setattr(owner, name, installed.__wrapped__)


def _replace(owner: Any, name: str, wrap: Callable[[Any], Any]) -> None:
    original = getattr(owner, name)
    if not hasattr(original, _INSTALLED):
        replacement = functools.wraps(original)(wrap(original))
        setattr(replacement, _INSTALLED, True)
        setattr(owner, name, replacement)


def _excepting(tell: Callable[[ExceptHookArgs], Any]) -> Callable[[ExceptHookArgs], None]:
    def tell_without_our_frame(args: ExceptHookArgs) -> None:
        trace = args.exc_traceback
        while trace is not None and trace.tb_next is not None:
            if trace.tb_next.tb_frame.f_code.co_filename == __file__:
                trace.tb_next = trace.tb_next.tb_next
            else:
                trace = trace.tb_next
        tell(args)

    return tell_without_our_frame


def _starting(start: Callable[[Thread], None]) -> Callable[[Thread], None]:
    def start_in_context(thread: Thread) -> None:
        # The first `submit` of the first executor starts its first thread, so patching then is in
        # time for the second thread; and a program that uses no executors need not import them.
        executors = sys.modules.get("concurrent.futures.thread")
        if executors is not None:
            _replace(executors.ThreadPoolExecutor, "submit", _submitting)
        task = _task.get()
        if task is None:
            start(thread)
            return
        _started_by[thread] = task
        run, context = thread.run, copy_context()

        def run_in_context() -> None:
            vars(thread).pop("run", None)  # it refers to the thread: leave no cycle behind
            context.run(run)

        thread.run = run_in_context  # type: ignore[method-assign] # of this one
        try:
            start(thread)
        except BaseException:
            vars(thread).pop("run", None)
            raise

    return start_in_context


def _submitting(submit: Callable[..., Future[Any]]) -> Callable[..., Future[Any]]:
    def submit_in_context(
        executor: ThreadPoolExecutor, function: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Future[Any]:
        # Its threads serve all callers: each call brings a context, even one without a task.
        return submit(executor, copy_context().run, function, *args, **kwargs)

    return submit_in_context
