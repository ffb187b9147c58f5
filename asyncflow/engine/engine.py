"""The engine, which joins all parts; applications hold it open."""

from __future__ import annotations

import os
import warnings
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Self

from asyncflow._support import log
from asyncflow._support.conditions import in_thread, look_again, until
from asyncflow._support.event_loop import (
    check_loop,
    loop_here,
    run_to_completion,
)
from asyncflow._support.public_names import with_methods_of
from asyncflow._support.settings import Settings
from asyncflow._support.timed_call import TimedCall
from asyncflow.engine.admission import Admission, runs_that_fit
from asyncflow.engine.live_runs import LiveRuns
from asyncflow.engine.starter import Starter
from asyncflow.engine.thread_pools import ThreadPools
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
from asyncflow.scheduling.run_identity import RunIdentity
from asyncflow.scheduling.run_services import RunServices
from asyncflow.scheduling.statistics import Statistics
from asyncflow.store import open_store
from asyncflow.values import RunOptions
from asyncflow.workers.local.pool import WorkerPool
from asyncflow.workers.program_environment import look_around

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from asyncflow.engine.new_run import NewRun
    from asyncflow.engine.run_handle import RunHandle
    from asyncflow.engine.run_trace import RunTracer
    from asyncflow.engine.starter import Found, Prepare
    from asyncflow.store.interface import JournalAppender, RunStore, StoredRun
    from asyncflow.workers.interface import Executor, ExecutorFactory, WorkerListener
    from asyncflow.workers.program_environment import ProgramEnvironment


_LOOK_SECONDS: Final = 0.25


@with_methods_of(Starter, Watchable)
class Engine(Starter, Watchable):
    """Runs flows on warm workers, for as long as an application holds it open.

    Use it as `async with`. Leaving the block cancels the runs that are still going on, journals
    that, and leaves no task, thread, process or file descriptor behind, however it is left.
    `resume_interrupted` of a later engine takes these runs up. It is entered once, and used on the
    event loop that entered it.
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
            store: The folder of the store, or the URL of an object store, such as
                `s3://bucket/prefix`; wins over that of `settings`.
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
        self._looking: TimedCall | None = None
        self._watchers = Watchers(self.settings.event_buffer)
        self._starting: set[asyncio.Task[Any]] = set()
        self._said: set[tuple[str, str]] = set()
        self._options = RunOptions(max_running_tasks=self.settings.max_running_tasks)
        self._durable = self.settings.durability == "power"
        self._admission = Admission(self.settings.max_runs)
        self._code = CodeFiles(self.settings.keep_code)
        self.tracer: RunTracer | None = None
        """Traces its runs, see `asyncflow.otel`."""

    # --- life ---

    async def __aenter__(self) -> Self:
        loader.check_may_start()
        if self._entered:
            raise self._entered_again()
        self._loop = loop_here()
        self._entered = True
        self._pools = ThreadPools(durable=self._durable)
        dispatcher: Dispatcher | None = None
        store: RunStore | None = None
        try:
            self._pools.begin()
            store = await in_thread(self._pools.disk, self._open_store)
            self._store: RunStore = store
            self._uploader = await in_thread(self._pools.disk, self._store.uploader)
            self._services = RunServices(
                disk=self._pools.disk,
                syncs=self._pools.syncs,
                sync_seconds=self.settings.sync_seconds,
                grace_seconds=self.settings.grace_seconds,
                finish_running=self.settings.on_failure == "finish",
            )
            self._dispatcher = dispatcher = Dispatcher(
                self._services,
                self._open_executor,
                self._open_limits,
                machine=self.settings.machine,
                blocked_seconds=self.settings.blocked_seconds,
                import_seconds=self.settings.import_seconds,
            )
            await dispatcher.executor.start()
        except BaseException:
            self._entered = False
            if store is not None:
                await run_to_completion(in_thread(self._pools.syncs, store.close))
            self._pools.shutdown()
            if dispatcher is not None:
                await run_to_completion(dispatcher.executor.close())
            raise
        self._live = LiveRuns(
            self.settings,
            dispatcher,
            self._services,
            admission=self._admission,
            watchers=self._watchers,
            hook_threads=self._pools.hooks,
            reading_threads=self._pools.syncs,
        )
        self._admission.narrow(runs_that_fit())
        self._watchers.open(self._store)
        self._open = True
        return self

    def _open_store(self) -> RunStore:
        return open_store(self.settings.store, create=True)

    def _open_executor(self, listener: WorkerListener) -> Executor:
        size, scratch = self.settings.worker_count, self._store.scratch
        location = self._store.location
        if self._uploader is None:
            return self._make_executor(listener, size=size, scratch=scratch, store=location)
        from asyncflow.workers.held_reports import HeldReports

        held = HeldReports(listener, self._uploader, holds_begun=True)
        executor = self._make_executor(held, size=size, scratch=scratch, store=location)
        held.watch(executor)
        return executor

    def _open_limits(self, wake: Callable[[Any], None]) -> Limits:
        limits, grace = self._store.named_limits, self.settings.grace_seconds
        self._limits = Limits(limits, self._pools.disk, wake, grace_seconds=grace)
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
        try:  # to the end, even if the caller is cancelled
            _, cancelled = await run_to_completion(self._close())
        finally:
            if self._looking is not None:
                self._looking.cancel()
        if cancelled is not None:
            raise cancelled

    async def _close(self) -> None:
        try:
            await self._end_runs()
        finally:
            self._dispatcher.close()
            try:
                await self._dispatcher.executor.close()
                await in_thread(self._pools.syncs, self._limits.leave)
                await in_thread(self._pools.syncs, self._store.close)
            finally:
                await self._pools.close()
                self._limits.close()

    async def _end_runs(self) -> None:
        self._admission.close()
        try:
            for starting in list(self._starting):
                await until(starting.done, by=[starting])
            await self._live.end("its engine was closed")
        finally:
            self._live.break_off()
        await self._watchers.end(self.settings.grace_seconds)
        await self._live.end_hooks()

    # --- what was to be called, and is not ---

    def _keep_looking(self) -> None:
        """While anything is waited for, check all conditions repeatedly.

        See `asyncflow._support.conditions`. A check that is long overdue was lost, and is replaced.
        """
        now = self._loop.time()
        if self._looking is None or self._looking.is_overdue(now, _LOOK_SECONDS):
            self._looking = TimedCall(self._loop, now + _LOOK_SECONDS, self._look)

    def _look(self) -> None:
        self._looking = None
        if self._live or self._starting or self._closed:
            self._keep_looking()  # first: else an exception of a signal handler here ends it
        look_again(self._loop)
        self._loop.call_soon(self._live.look)  # in a turn of its own: there may be many runs

    def __del__(self) -> None:
        if getattr(self, "_open", False):
            warnings.warn(f"{self!r} was never closed", ResourceWarning, source=self, stacklevel=1)

    # --- running ---

    def _check_open(self) -> None:
        if not self._open:
            raise EngineClosedError
        check_loop(self._loop)

    async def _begin(self, prepare: Prepare, options: RunOptions) -> RunHandle:
        """Start the run that `prepare` creates; in a thread, because that reads files."""
        self._check_open()
        self._keep_looking()
        inside = object()
        try:
            await self._admission.enter(options.priority, inside)
            self._check_open()
            surroundings = self._look_around(self._dispatcher.executor.environment)
            creating = self._create(prepare, options, surroundings, inside)
            handle, cancelled = await run_to_completion(creating, self._starting)
        except BaseException:
            self._admission.leave(inside)
            raise
        if cancelled is not None:
            handle.cancel("the task that started it was cancelled")
            raise cancelled
        return handle

    async def _look_up(self, find: Callable[[RunStore], Found]) -> Found:
        self._check_open()
        return await in_thread(self._pools.makers, find, self._store)

    def _handle_of(self, run: StoredRun) -> RunHandle:
        """A handle of a run that was found, of this engine or of another one."""
        own = self._live.handle_of(run.pathspec)
        if own is not None:
            return own
        from asyncflow.engine.other_run import OtherRunHandle

        return OtherRunHandle(run, self._pools.syncs)

    def _look_around(self, initial: Mapping[str, str]) -> ProgramEnvironment:
        """What a run's tasks find around them; `initial` are the variables of the workers."""
        return look_around(initial)

    @property
    def _environ(self) -> Mapping[str, str]:
        """The variables that give parameters their values."""
        return os.environ

    async def _create(
        self,
        prepare: Prepare,
        options: RunOptions,
        surroundings: ProgramEnvironment,
        inside: object,
    ) -> RunHandle:
        self._numbers += 1
        number = self._numbers
        trace = None if self.tracer is None else self.tracer()

        def create() -> tuple[NewRun, tuple[RunIdentity, JournalAppender, bytes]]:
            new = prepare(self._store, self._code, self._environ, durable=self._durable)
            self._limits.open(new.graph)
            new.trace = trace
            return new, new.create(number, options, surroundings)

        await self._services.loop_budget.turn()
        try:
            new, created = await in_thread(self._pools.makers, create)
        except BaseException:
            if trace is not None:
                trace.give_up()
            raise
        await self._services.loop_budget.turn()
        self._say_without_effect(new)
        return self._live.begin(new, *created, inside)

    def _say_without_effect(self, new: NewRun) -> None:
        """Say once for each flow which of its decorators are for other machines."""
        words = without_effect(new.graph)
        if words and (new.graph.flow, words) not in self._said:
            self._said.add((new.graph.flow, words))
            log.warning(f"{new.graph.flow} runs on this machine, so these do nothing: {words}")

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
            runs=len(self._live),
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
