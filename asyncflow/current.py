"""`current`: what the code of a step can ask about the task that it runs in.

    from asyncflow import current
    print(current.pathspec)

It is right in every task, also where a worker runs many `async def` steps at once, since it follows
the context of the code that asks (`contextvars`). A thread that a step starts inherits its context;
where it cannot, the process has only one task at a time, and that one is meant.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from asyncflow.errors import FlowError
from asyncflow.parameters import user_name

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from concurrent.futures import Future, ThreadPoolExecutor
    from contextvars import Context
    from threading import ExceptHookArgs, Thread
    from types import FrameType

    from asyncflow.graph import Graph


def _no_parameter(name: str) -> Any:
    raise KeyError(name)


def _not_awaitable(name: str, of: object) -> Awaitable[Any]:
    read = f"self.{name}" if of is None else f"the input's attribute {name!r}"
    raise FlowError(f"current.load is for async steps: in a `def` step, read {read}")


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskContext:
    """What is known of the task that runs; the worker makes it."""

    flow_name: str
    run_id: str
    step_name: str
    task_id: str
    attempt: int
    """0 for the first."""
    graph: Graph
    parameter_names: tuple[str, ...] = ()
    load_parameter: Callable[[str], Any] = _no_parameter
    """The value of a parameter; called when somebody asks."""
    load: Callable[[str, Any], Awaitable[Any]] = _not_awaitable
    """An artifact of the task, or of an input of it."""
    tags: tuple[str, ...] = ()
    origin_run_id: str | None = None
    """The run that this one resumes."""

    @property
    def pathspec(self) -> str:
        """`Flow/run/step/task`."""
        return f"{self.flow_name}/{self.run_id}/{self.step_name}/{self.task_id}"


_task: ContextVar[TaskContext | None] = ContextVar("asyncflow_task", default=None)
_solo: TaskContext | None = None  # the one task of this process, for threads without a context


@contextmanager
def enter_task(context: TaskContext, *, solo: bool) -> Iterator[None]:
    """Make it the current task within the block.

    With `solo`, it is the only task of this process: threads that inherit no context see it too.
    """
    global _solo  # noqa: PLW0603 - what runs in the process is the process's state
    token = _task.set(context)
    before = _solo
    if solo:
        _solo = context
    try:
        yield
    finally:
        _solo = before
        _task.reset(token)


def running_task() -> TaskContext | None:
    """The task that the asking code runs in; None outside of any."""
    return _task.get() or _solo


def task_in(context: Context) -> TaskContext | None:
    """The task that code which runs in this context belongs to; may be asked in any thread."""
    return context.get(_task)


def leave_task() -> None:
    """What this context does from now on is no task's any more, though it began as part of one."""
    _task.set(None)


class ParameterValues(Mapping[str, Any]):
    """The parameters of the run by name, as attributes and as a mapping; read when asked for."""

    def __init__(self, context: TaskContext) -> None:
        self._context = context

    def __getitem__(self, name: str) -> Any:
        if name not in self._context.parameter_names:
            raise KeyError(name)
        return self._context.load_parameter(name)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name not in self._context.parameter_names:
            message = f"flow {self._context.flow_name!r} has no parameter {name!r}"
            raise AttributeError(message)
        return self[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._context.parameter_names)

    def __len__(self) -> int:
        return len(self._context.parameter_names)

    def __repr__(self) -> str:
        return f"<parameters {', '.join(self) or 'none'}>"


class Current:
    """The task that the asking code runs in; outside a task, only `is_running_flow` is known.

    Raises, from every other attribute outside a task: AttributeError.
    """

    __slots__ = ()

    @property
    def is_running_flow(self) -> bool:
        """Whether this code runs in a task."""
        return running_task() is not None

    @property
    def flow_name(self) -> str:
        """The name of the flow's class."""
        return _context().flow_name

    @property
    def run_id(self) -> str:
        """The run's id within its flow."""
        return _context().run_id

    @property
    def step_name(self) -> str:
        """The step that runs."""
        return _context().step_name

    @property
    def task_id(self) -> str:
        """The task's id within its run: 1, 2, 3… as text."""
        return _context().task_id

    @property
    def attempt(self) -> int:
        """Which attempt of the task this is, 0 for the first."""
        return _context().attempt

    @property
    def retry_count(self) -> int:
        """How often the task was tried before: Metaflow's name for `attempt`."""
        return _context().attempt

    @property
    def pathspec(self) -> str:
        """`Flow/run/step/task`."""
        return _context().pathspec

    @property
    def parameter_names(self) -> list[str]:
        """The attributes of the flow that are parameters."""
        return list(_context().parameter_names)

    @property
    def parameters(self) -> ParameterValues:
        """The values of the parameters."""
        return ParameterValues(_context())

    @property
    def tags(self) -> set[str]:
        """The tags that the run was started with; changing the set changes nothing."""
        return set(_context().tags)

    @property
    def origin_run_id(self) -> str | None:
        """The run that this one resumes; None if it began at the start."""
        return _context().origin_run_id

    @property
    def graph(self) -> Graph:
        """The graph of the flow."""
        return _context().graph

    @property
    def username(self) -> str:
        """Who runs the flow."""
        _context()
        return user_name()

    @property
    def namespace(self) -> str:
        """`user:NAME`, as in Metaflow."""
        return f"user:{self.username}"

    def load(self, name: str, of: Any = None) -> Awaitable[Any]:
        """In an async step, read an artifact that is large while other tasks go on.

        `await current.load("model")` is `self.model`, and has it be that from then on. It is read,
        hashed and unpickled in a thread, code of its class included, and is known to be what was
        stored when it comes back. `"input"` is `self.input`.

        Args:
            name: The artifact, or the parameter.
            of: In a join, one of the inputs, to read its artifact: `await current.load("model",
                inputs.train)` is `inputs.train.model`.

        Raises:
            AttributeError: There is no such artifact; or no task runs here.
            FlowError: The step is no async step.
            ArtifactError: It cannot be read.

        Cancelled: the reading goes on in its thread, and what comes of it is dropped. The task does
        not end before that has.
        """
        return _context().load(name, of)

    def get(self, name: str, default: Any = None) -> Any:
        """The attribute of this name, else the default."""
        return getattr(self, name, default)

    def __contains__(self, name: str) -> bool:
        return getattr(self, name, None) is not None

    def __repr__(self) -> str:
        return f"<current {self.pathspec}>" if self.is_running_flow else "<current: no task>"


def _context() -> TaskContext:
    context = running_task()
    if context is None:
        message = "no task runs here: `current` tells of a task only in the code of its step"
        raise AttributeError(message)
    return context


current = Current()
"""The one object of its kind."""


# --- threads ----------------------------------------------------------------------------------

_INSTALLED: Final = "_asyncflow_installed"
_started_by: Final[WeakKeyDictionary[Thread, TaskContext]] = WeakKeyDictionary()
_LAID_OFF: Final = ("concurrent.futures", "anyio", "loky", "joblib.externals.loky")
"""Whose threads wait for more work when they have done what a step has asked of them."""


def threads_left() -> list[tuple[str, str]]:
    """The threads that still do something: name, and which task has started it.

    Not daemons: whoever makes one says that it may end with its process.
    """
    threading = sys.modules["threading"]
    frames = sys._current_frames()  # noqa: SLF001 - documented, whatever it is called
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
    return is_executors and code.co_name == "_worker"  # else it stands in what it was given


def install_thread_propagation() -> None:
    """Have the threads that a step starts run in its context, in this process, for good.

    For worker processes: it replaces `Thread.start` and `ThreadPoolExecutor.submit`. Harmless when
    repeated.
    """
    import threading  # noqa: PLC0415 - start-up time: the engine's process does without

    _replace(threading.Thread, "start", _starting)
    _replace(threading, "excepthook", _excepting)


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
        # The first thread of the first executor is started by its first `submit`, so this is in
        # time for the second; and nobody imports executors who does not use them.
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
        # Its threads serve whoever submits: each call brings a context, be it one without a task.
        return submit(executor, copy_context().run, function, *args, **kwargs)

    return submit_in_context
