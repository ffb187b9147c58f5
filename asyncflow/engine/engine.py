"""The engine, which joins all parts; applications hold it open."""

from __future__ import annotations

import asyncio
import os
import warnings
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

from asyncflow._support import log
from asyncflow._support.conditions import in_thread, look_again, thread_done, until
from asyncflow._support.event_loop import (
    check_loop,
    loop_here,
    run_to_completion,
)
from asyncflow._support.public_names import with_methods_of
from asyncflow._support.settings import Settings
from asyncflow._support.thread_pool import Threads
from asyncflow.engine.admission import Admission, runs_that_fit
from asyncflow.engine.arguments import check_flow, check_origin, check_store, check_tags
from asyncflow.engine.new_run import NewRun
from asyncflow.engine.run_handle import FailureObserver, RunHandle
from asyncflow.engine.subscription import Channel
from asyncflow.engine.watchers import Watchable, Watchers
from asyncflow.errors import (
    AsyncflowError,
    EngineClosedError,
    SettingsError,
)
from asyncflow.flow import loader
from asyncflow.flow.code_files import CodeFiles
from asyncflow.flow.remote_decorators import without_effect
from asyncflow.scheduling.dispatcher import Dispatcher
from asyncflow.scheduling.named_limits import Limits
from asyncflow.scheduling.run_driver import RunDriver
from asyncflow.scheduling.run_identity import RunIdentity
from asyncflow.scheduling.run_services import RunServices
from asyncflow.scheduling.statistics import Statistics
from asyncflow.store import open_store
from asyncflow.store.journal import FIRST_RECORD
from asyncflow.values import RunOptions, Status
from asyncflow.workers.local.pool import WorkerPool
from asyncflow.workers.program_environment import look_around

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from asyncflow.client import Run
    from asyncflow.engine.exit_hooks import ExitHooks
    from asyncflow.flow.spec import FlowSpec
    from asyncflow.store.interface import JournalAppender, RunStore
    from asyncflow.workers.interface import Executor, ExecutorFactory, WorkerListener
    from asyncflow.workers.program_environment import ProgramEnvironment


class _Prepare(Protocol):
    """Creates a run's folder and first record; called in a thread."""

    def __call__(
        self, store: RunStore, code: CodeFiles, environ: Mapping[str, str], *, durable: bool
    ) -> NewRun: ...


_HOOK_THREADS: Final = 8  # each waits for a process; none is started before there is a hook
_DISK_THREADS: Final = 4  # journals that wait on the disk at once
_LOOK_SECONDS: Final = 0.5
# when nothing waits on the disk: more threads would only take the interpreter from the loop
_WRITING_THREADS: Final = 1


class Starter:
    """Starts runs: an engine, or an engine together with options for its runs.

    Keyword arguments, apart from `tags`, are parameters of the flow; other options of a run are set
    with `options`.
    """

    _options: RunOptions

    async def run(
        self, flow: type[FlowSpec], /, *, tags: Iterable[str] = (), **parameters: Any
    ) -> Run:
        """Run a flow to its end.

        Raises:
            FlowError: It is not a flow class.
            GraphError: The flow's steps form no graph that can be run.
            ParameterError: A parameter has a value that it cannot take, or a tag is not text.
            RunFailedError: A task failed; the error says which one, and why.
            RunCancelledError: Somebody else cancelled the run.

        Cancelled: the run is cancelled too; its journal says so before the cancellation goes on.
        """
        handle = await self.start(flow, tags=tags, **parameters)
        return await handle

    async def start(
        self, flow: type[FlowSpec], /, *, tags: Iterable[str] = (), **parameters: Any
    ) -> RunHandle:
        """Start a flow; return once the run is in its journal.

        Raises:
            EngineClosedError: The engine is not open.
            AsyncflowError: The engine was entered on another event loop.
            FlowError: It is not a flow class.
            GraphError: The flow's steps form no graph that can be run.
            ParameterError: A parameter has a value that it cannot take, or a tag is not text.
            StoreError: The store cannot be written.

        Cancelled: no run was started, or it is cancelled like any other.
        """
        check_flow(flow)
        stored = check_tags(tags)

        def prepare(
            store: RunStore, code: CodeFiles, environ: Mapping[str, str], *, durable: bool
        ) -> NewRun:
            new = NewRun(store, flow, stored, code, environ, durable=durable)
            new.give(parameters)
            return new

        return await self._start(prepare, self._options)

    async def resume(
        self,
        flow: type[FlowSpec],
        /,
        *,
        origin: str | int | Run | RunHandle | None = None,
        step: str | None = None,
        tags: Iterable[str] = (),
    ) -> Run:
        """Resume an earlier run to its end: take over its finished tasks, run the others.

        Finished tasks of `origin` are taken over as refs; their values are not copied. With `step`,
        that step and all steps after it run again. The parameters are those of the origin.

        Args:
            flow: The flow class, as it is now.
            origin: A run id, a pathspec, a `Run` or a handle; the flow's latest run if left out.
            step: The first step to run again.
            tags: Those of the new run.

        Raises:
            FlowError: It is not a flow class.
            ParameterError: A tag is not text.
            ResumeError: The origin is not a run of this flow in this store, or is still running, or
                the flow no longer has the steps that finished.
            RunFailedError: A task failed; the error says which one, and why.
            RunCancelledError: Somebody else cancelled the run.

        Cancelled: the run is cancelled too; its journal says so before the cancellation goes on.
        """
        return await (await self.start_resumed(flow, origin=origin, step=step, tags=tags))

    async def start_resumed(
        self,
        flow: type[FlowSpec],
        /,
        *,
        origin: str | int | Run | RunHandle | None = None,
        step: str | None = None,
        tags: Iterable[str] = (),
    ) -> RunHandle:
        """The same as `resume`, but return once the new run is in its journal.

        Raises:
            EngineClosedError: The engine is not open.
            AsyncflowError: The engine was entered on another event loop.
            FlowError: It is not a flow class.
            ParameterError: A tag is not text.
            ResumeError: The origin is not a run of this flow in this store, or is still running, or
                the flow no longer has the steps that finished.
        """
        check_flow(flow)
        stored = check_tags(tags)
        run_id = check_origin(flow, origin)

        def prepare(
            store: RunStore, code: CodeFiles, environ: Mapping[str, str], *, durable: bool
        ) -> NewRun:
            check_store(store, origin)
            new = NewRun(store, flow, stored, code, environ, durable=durable)
            new.take_over_from(run_id, step)
            return new

        return await self._start(prepare, self._options)

    def options(
        self,
        *,
        priority: int | None = None,
        max_running_tasks: int | None = None,
        branch: str | None = None,
        production: bool | None = None,
    ) -> Starter:
        """Return a starter of runs with these options; an option that is left out stays as it is.

        Args:
            priority: Tasks of runs with a higher priority get workers first; 0 by default.
            max_running_tasks: How many tasks of a run workers may have at a time; 0 for no limit.
            branch: The branch of the flow's project that runs are in.
            production: Whether runs are of production in the flow's project.

        Raises:
            SettingsError: A value is out of range.
        """
        given: dict[str, Any] = {
            "priority": priority,
            "max_running_tasks": max_running_tasks,
            "branch": branch,
            "production": production,
        }
        changed = {name: value for name, value in given.items() if value is not None}
        return _OptionedEngine(self, replace(self._options, **changed))

    async def _start(self, prepare: _Prepare, options: RunOptions) -> RunHandle:
        raise NotImplementedError


class _OptionedEngine(Starter):
    """An engine together with options for the runs that it starts."""

    def __init__(self, starter: Starter, options: RunOptions) -> None:
        self._starter, self._options = starter, options

    async def _start(self, prepare: _Prepare, options: RunOptions) -> RunHandle:
        return await self._starter._start(prepare, options)  # noqa: SLF001 - both classes are one concept

    def __repr__(self) -> str:
        return f"<{self._options} of {self._starter!r}>"


@with_methods_of(Starter, Watchable)
class Engine(Starter, Watchable):
    """Runs flows on warm workers, for as long as an application holds it open.

    Use it as `async with`. Leaving the block cancels the runs that are still going on, journals
    that, and leaves no task, thread, process or file descriptor behind, however it is left. It is
    entered once, and used on the event loop that entered it.
    """

    def __init__(
        self,
        *,
        store: str | Path | None = None,
        workers: int | None = None,
        settings: Settings | None = None,
        executor: ExecutorFactory = WorkerPool,
    ) -> None:
        """Prepare an engine; nothing is started before `async with`.

        Args:
            store: The folder of the store; wins over that of `settings`.
            workers: How many workers there may be; wins over that of `settings`.
            settings: All others.
            executor: Where tasks run: in worker processes on this machine, if left out.

        Raises:
            SettingsError: A setting has a value that it cannot take.
        """
        given_settings: object = settings
        if settings is None:
            settings = Settings.read(store=store, workers=workers)
        elif not isinstance(given_settings, Settings):
            message = (
                f"{given_settings!r} is not a Settings: write settings=Settings.read(workers=…)"
            )
            raise SettingsError(message)
        given: dict[str, Any] = {"store": store, "workers": workers}
        named = {name: value for name, value in given.items() if value is not None}
        self.settings = replace(settings, **named)
        self._make_executor = executor
        self._numbers = 0
        self._open = self._closed = False
        self._entered = False
        self._drivers: dict[int, RunDriver] = {}
        self._channels: dict[int, Channel] = {}
        self._observers: dict[int, FailureObserver] = {}  # of these
        self._looking: asyncio.TimerHandle | None = None
        self._watchers = Watchers(self.settings.event_buffer)
        self._starting: set[asyncio.Task[Any]] = set()
        self._hooks: dict[int, ExitHooks] = {}
        self._hook_threads = Threads(_HOOK_THREADS, "asyncflow-exit-hooks")
        self._said: set[tuple[str, str]] = set()
        self._options = RunOptions(max_running_tasks=self.settings.max_running_tasks)
        self._admission = Admission(self.settings.max_runs)
        self._code = CodeFiles(self.settings.keep_code)

    # --- life ---

    async def __aenter__(self) -> Self:
        loader.check_may_start()
        if self._entered:
            raise self._entered_again()
        self._loop = loop_here()
        self._entered = True
        writing = _DISK_THREADS if self.settings.durability == "power" else _WRITING_THREADS
        self._disk = Threads(writing, "asyncflow-disk")
        self._syncs = Threads(_DISK_THREADS, "asyncflow-sync")
        # A thread of its own: reading what a large run has finished takes seconds.
        self._makers = Threads(1, "asyncflow-start")
        try:
            for threads in (self._disk, self._syncs, self._makers):
                threads.begin()  # now, when a lack of memory is still only an error
            self._store: RunStore = await in_thread(self._disk, self._open_store)
            self._services = RunServices(
                disk=self._disk,
                syncs=self._syncs,
                sync_seconds=self.settings.sync_seconds,
                grace_seconds=self.settings.grace_seconds,
                finish_running=self.settings.on_failure == "finish",
            )
            self._dispatcher = Dispatcher(
                self._services,
                self._open_executor,
                self._open_limits,
                machine=self.settings.machine,
                blocked_seconds=self.settings.blocked_seconds,
                import_seconds=self.settings.import_seconds,
            )
            await self._dispatcher.executor.start()
        except BaseException:
            self._entered = False
            for threads in (self._disk, self._syncs, self._makers):
                threads.shutdown()
            if hasattr(self, "_dispatcher"):
                await run_to_completion(self._dispatcher.executor.close())
            raise
        self._admission.narrow(runs_that_fit())
        self._watchers.open(self._store)
        self._open = True
        return self

    def _open_store(self) -> RunStore:
        return open_store(self.settings.store, create=True)

    def _open_executor(self, listener: WorkerListener) -> Executor:
        size, scratch = self.settings.worker_count, self._store.scratch
        return self._make_executor(listener, size=size, scratch=scratch)

    def _open_limits(self, wake: Callable[[Any], None]) -> Limits:
        self._limits = Limits(self._store.limits, self._disk, wake)
        return self._limits

    def _entered_again(self) -> AsyncflowError:
        if self._closed:
            message = "this engine was closed and cannot be entered again: make another `Engine`"
            return EngineClosedError(message)
        return AsyncflowError("this engine is open already: use it as it is, without `async with`")

    async def __aexit__(self, *exception: object) -> None:
        self._check_open()
        self._open = False
        self._closed = True
        self._keep_looking()
        _, cancelled = await run_to_completion(
            self._close()
        )  # to the end, even if the caller is cancelled
        if cancelled is not None:
            raise cancelled

    async def _close(self) -> None:
        try:
            await self._end_runs()
        finally:
            self._dispatcher.close()
            try:
                await self._dispatcher.executor.close()
            finally:
                await _shut_down(self._disk, self._syncs, self._makers, self._hook_threads)
                self._limits.close()
                if self._looking is not None:
                    self._looking.cancel()

    async def _end_runs(self) -> None:
        self._admission.close()
        try:
            for starting in list(self._starting):
                await until(starting.done, by=[starting])
            for driver in self._drivers.values():
                driver.cancel("its engine was closed")
            for driver in list(self._drivers.values()):
                await driver.finished.wait()
        finally:
            for driver in self._drivers.values():  # none, unless closing has raised an exception
                driver.break_off()
        await self._watchers.end(self.settings.grace_seconds)
        await self._end_hooks()

    async def _end_hooks(self) -> None:
        """Return once no exit hook runs; those that take longer than the grace are killed."""
        hooks = list(self._hooks.values())
        end = self._loop.time() + self.settings.grace_seconds
        for each in hooks:
            await each.wait(max(0.0, end - self._loop.time()))
        for each in hooks:
            each.kill()
        for each in hooks:
            await each.wait()

    # --- what was to be called, and is not ---

    def _keep_looking(self) -> None:
        """While anything is waited for, check all conditions repeatedly.

        See `asyncflow._support.conditions`. A check that is long overdue was lost, and is replaced.
        """
        now = self._loop.time()
        if self._looking is None or self._looking.when() < now - _LOOK_SECONDS:
            self._looking = self._loop.call_later(_LOOK_SECONDS, self._look)

    def _look(self) -> None:
        self._looking = None
        look_again(self._loop)
        for number, driver in list(self._drivers.items()):
            if driver.task is None or driver.task.done():
                self._on_driven(number)
        if self._drivers or self._starting or self._closed:
            self._keep_looking()

    def __del__(self) -> None:
        if getattr(self, "_open", False):
            warnings.warn(f"{self!r} was never closed", ResourceWarning, source=self, stacklevel=1)

    # --- running ---

    def _check_open(self) -> None:
        if not self._open:
            raise EngineClosedError
        check_loop(self._loop)

    async def _start(self, prepare: _Prepare, options: RunOptions) -> RunHandle:
        """Start the run that `prepare` creates; in a thread, because that reads files."""
        self._check_open()
        self._keep_looking()
        await self._admission.enter(options.priority)
        try:
            self._check_open()
            surroundings = self._look_around(self._dispatcher.executor.environment)
            creating = self._create(prepare, options, surroundings)
            handle, cancelled = await run_to_completion(creating, self._starting)
        except BaseException:
            self._admission.leave()
            raise
        if cancelled is not None:
            handle.cancel("the task that started it was cancelled")
            raise cancelled
        return handle

    def _look_around(self, initial: Mapping[str, str]) -> ProgramEnvironment:
        """What a run's tasks find around them; `initial` are the variables of the workers."""
        return look_around(initial)

    @property
    def _environ(self) -> Mapping[str, str]:
        """The variables that give parameters their values."""
        return os.environ

    async def _create(
        self, prepare: _Prepare, options: RunOptions, surroundings: ProgramEnvironment
    ) -> RunHandle:
        self._numbers += 1
        number = self._numbers

        def create() -> tuple[NewRun, tuple[RunIdentity, JournalAppender, bytes]]:
            durable = self.settings.durability == "power"
            new = prepare(self._store, self._code, self._environ, durable=durable)
            self._limits.open(new.graph)
            return new, new.create(number, options, surroundings)

        await self._services.loop_budget.turn()
        new, created = await in_thread(self._makers, create)
        await self._services.loop_budget.turn()
        self._say_without_effect(new)
        return self._drive(new, *created)

    def _say_without_effect(self, new: NewRun) -> None:
        """Say once for each flow which of its decorators are for other machines."""
        words = without_effect(new.graph)
        if words and (new.graph.flow, words) not in self._said:
            self._said.add((new.graph.flow, words))
            log.warning(f"{new.graph.flow} runs on this machine, so these do nothing: {words}")

    def _drive(
        self, new: NewRun, identity: RunIdentity, journal: JournalAppender, record: bytes
    ) -> RunHandle:
        channel = Channel(identity.stored, published=FIRST_RECORD)
        driver = RunDriver(
            identity,
            new.graph,
            journal,
            channel,
            self._dispatcher,
            self._services,
            new.origin,
        )
        self._drivers[identity.number], self._channels[identity.number] = driver, channel
        try:
            self._watchers.begin(channel)
            driver.begin(record)
            self._dispatcher.enter(driver)
        except BaseException:  # a signal handler may raise one, for example
            del self._drivers[identity.number], self._channels[identity.number]
            self._watchers.forget(channel)
            driver.let_go()
            raise
        observer = FailureObserver()
        self._observers[identity.number] = observer
        hooks = None
        if "exit_hook" in new.graph.options:
            from asyncflow.engine.exit_hooks import ExitHooks

            hooks = self._hooks[identity.number] = ExitHooks(driver, self._hook_threads)
        driver.start(partial(self._on_driven, identity.number))
        return RunHandle(driver, channel, self.settings, observer, hooks)

    def _on_driven(self, number: int, task: asyncio.Task[None] | None = None) -> None:
        """Clean up after a run. The event loop has already raised any exception of its driver."""
        driver, observer = self._drivers.pop(number, None), self._observers.pop(number, None)
        channel = self._channels.pop(number, None)
        if driver is None or channel is None:
            return
        driver.let_go()  # again: an exception may have interrupted the driver in its own clean-up
        self._watchers.forget(channel)
        if observer is None or driver.task is None:  # its start was broken off
            return
        if task is not None:
            task.exception()
        observer.noticed = observer.noticed or bool(channel.subscribers)
        if driver.error is not None or driver.plan.status is Status.FAILED:
            observer.failed = channel.pathspec
        self._admission.leave()
        if number in self._hooks:
            self._hooks[number].begin()
            self._hooks = {
                each: hooks
                for each, hooks in self._hooks.items()
                if each in self._drivers or not hooks.ended
            }

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Pause all workers, and with them the running steps, within the block.

        For a program that stops itself, as on Ctrl-Z: `os.kill(os.getpid(), signal.SIGSTOP)`. Each
        worker's process group is stopped with SIGSTOP. The time within the block does not count
        towards a task's time limit. Does nothing if the engine is not open.
        """
        if not self._open:
            yield
            return
        with self._dispatcher.suspended(), self._dispatcher.executor.suspended():
            yield

    # --- watching ---

    def statistics(self) -> Statistics:
        """The engine's current numbers: runs, tasks, workers, events.

        Raises:
            EngineClosedError: The engine is not open.
            AsyncflowError: It is called in another thread than the engine's, or on another loop.
        """
        self._check_open()
        return self._statistics()

    def _statistics(self) -> Statistics:
        meter = self._services.meter
        return Statistics(
            runs=len(self._drivers),
            runs_waiting=self._admission.waiting,
            events=meter.events,
            events_per_second=meter.per_second(),
            bytes_written=meter.bytes,
            **self._dispatcher.statistics,
        )

    def __repr__(self) -> str:
        if not self._open:
            return f"<Engine {self.settings.store} closed>"
        try:
            check_loop(self._loop)
        except AsyncflowError:
            # another thread may be changing its numbers
            return f"<Engine {self.settings.store} open>"
        numbers = self._statistics()
        waiting = f" and {numbers.runs_waiting} waiting" if numbers.runs_waiting else ""
        return (
            f"<Engine {self.settings.store} {numbers.runs} runs{waiting}, "
            f"{numbers.tasks_running} tasks running, {numbers.workers_idle} workers idle, "
            f"{numbers.workers_busy} busy>"
        )


async def _shut_down(*executors: Threads) -> None:
    """Return once all threads have ended; a slow disk may delay them."""
    for end in [end for executor in executors for end in executor.close()]:
        await thread_done(end)
    for executor in executors:
        executor.shutdown()  # idle threads, so waiting is short


async def run(flow: type[FlowSpec], /, *, tags: Iterable[str] = (), **parameters: Any) -> Run:
    """Run a flow to its end, with an engine of its own.

    Raises:
        RunFailedError: A task failed; the error says which one, and why.
        AsyncflowError: As from `Engine.run`.

    Cancelled: the run is cancelled too, and its journal says so before the cancellation goes on.
    """
    check_flow(flow)
    async with Engine() as engine:
        return await engine.run(flow, tags=tags, **parameters)


def run_sync(flow: type[FlowSpec], /, *, tags: Iterable[str] = (), **parameters: Any) -> Run:
    """The same as `run`, for code outside of an event loop.

    Raises:
        UnguardedRunError: The file of a flow starts a run whenever it is imported.
        AsyncflowError: Called where an event loop is running: await `asyncflow.run` there.
    """
    loader.check_may_start()
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        message = "an event loop is running here: write `await asyncflow.run(...)` instead"
        raise AsyncflowError(message)

    async def main() -> Run:
        return await run(flow, tags=tags, **parameters)

    import anyio

    try:
        return anyio.run(main)
    except AsyncflowError as error:
        # The message is complete; frames of the event loop would add nothing.
        raise error.with_traceback(None)  # noqa: B904 - the same error
