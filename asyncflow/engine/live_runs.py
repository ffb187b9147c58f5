"""The runs of an engine that have started and not ended, and the exit hooks of those that have."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from asyncflow._quick_classes import NamedTuple
from asyncflow.engine.mailboxes import Mailboxes
from asyncflow.engine.run_handle import FailureObserver, RunHandle
from asyncflow.engine.subscription import Channel
from asyncflow.scheduling.run_driver import RunDriver
from asyncflow.store.journal import FIRST_RECORD
from asyncflow.values import Status

if TYPE_CHECKING:
    from asyncflow._support.settings import Settings
    from asyncflow._support.thread_pool import Threads
    from asyncflow.engine.admission import Admission
    from asyncflow.engine.exit_hooks import ExitHooks
    from asyncflow.engine.new_run import NewRun
    from asyncflow.engine.watchers import Watchers
    from asyncflow.scheduling.dispatcher import Dispatcher
    from asyncflow.scheduling.run_identity import RunIdentity
    from asyncflow.scheduling.run_services import RunServices
    from asyncflow.store.interface import JournalAppender


class _LiveRun(NamedTuple):
    driver: RunDriver
    channel: Channel
    observer: FailureObserver
    inside: object
    """What the admission is given when it leaves."""


class LiveRuns:
    """Drives an engine's runs to their end, and calls their exit hooks after it."""

    def __init__(
        self,
        settings: Settings,
        dispatcher: Dispatcher,
        services: RunServices,
        *,
        admission: Admission,
        watchers: Watchers,
        hook_threads: Threads,
        reading_threads: Threads,
    ) -> None:
        """Begin without runs; each leaves the `admission` at its end."""
        self._settings, self._dispatcher, self._services = settings, dispatcher, services
        self._admission, self._watchers = admission, watchers
        self._hook_threads = hook_threads
        self._loop = asyncio.get_running_loop()
        self._runs: dict[int, _LiveRun] = {}
        self._hooks: dict[int, ExitHooks] = {}
        self._mailboxes = Mailboxes(reading_threads, self._loop)

    def __len__(self) -> int:
        return len(self._runs)

    def begin(
        self,
        new: NewRun,
        identity: RunIdentity,
        journal: JournalAppender,
        record: bytes,
        inside: object,
    ) -> RunHandle:
        """Begin to drive a run whose first record is in its journal.

        `inside` is what the admission is given when the run has ended.
        """
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
        observer = FailureObserver()
        self._runs[identity.number] = _LiveRun(driver, channel, observer, inside)
        try:
            self._watchers.begin(channel)
            driver.begin(record)
            self._dispatcher.enter(driver)
        except BaseException:  # a signal handler may raise one, for example
            del self._runs[identity.number]
            self._watchers.forget(channel)
            driver.let_go()
            raise
        hooks = None
        if "exit_hook" in new.graph.options:
            from asyncflow.engine.exit_hooks import ExitHooks

            hooks = self._hooks[identity.number] = ExitHooks(driver, self._hook_threads)
        driver.start(partial(self._on_driven, identity.number))
        self._mailboxes.add(driver)
        return RunHandle(driver, channel, self._settings, observer, hooks)

    def handle_of(self, pathspec: str) -> RunHandle | None:
        """A handle of a run that goes on; None if there is none."""
        for number, (driver, channel, observer, _) in self._runs.items():
            if driver.pathspec == pathspec:
                hooks = self._hooks.get(number)
                return RunHandle(driver, channel, self._settings, observer, hooks)
        return None

    def look(self) -> None:
        """Read the runs' mailboxes; clean up after runs whose end was not told: a call was lost."""
        self._mailboxes.look()
        for number, run in list(self._runs.items()):
            if run.driver.task is None or run.driver.task.done():
                self._on_driven(number)
        self._admission.call_again()

    def _on_driven(self, number: int, task: asyncio.Task[None] | None = None) -> None:
        """Clean up after a run. The event loop has already raised any exception of its driver.

        If an exception breaks this off, `look` does it again.
        """
        run = self._runs.get(number)
        if run is None:
            return
        driver, channel, observer, inside = run
        self._mailboxes.remove(number)
        driver.let_go()  # again: an exception may have interrupted the driver in its own clean-up
        self._watchers.forget(channel)
        if driver.task is None:  # its start was broken off
            self._runs.pop(number, None)
            return
        if task is not None:
            task.exception()
        observer.noticed = observer.noticed or bool(channel.subscribers)
        if driver.error is not None or driver.plan.status is Status.FAILED:
            observer.failed = channel.pathspec
        self._admission.leave(inside)
        if number in self._hooks:
            self._hooks[number].begin()
        self._runs.pop(number, None)
        if self._hooks:
            self._hooks = {
                each: hooks
                for each, hooks in self._hooks.items()
                if each in self._runs or not hooks.ended
            }

    async def end(self, reason: str) -> None:
        """Stop all runs, because their engine is closed, and return once they have ended."""
        for run in self._runs.values():
            run.driver.cancel(reason, by_shutdown=True)
        for run in list(self._runs.values()):
            await run.driver.finished.wait()

    def break_off(self) -> None:
        """End the runs that are left, without a last event: `end` has raised an exception."""
        for run in self._runs.values():
            run.driver.break_off()

    async def end_hooks(self) -> None:
        """Return once no exit hook runs; those that take longer than the grace are killed."""
        hooks = list(self._hooks.values())
        end = self._loop.time() + self._settings.grace_seconds
        for each in hooks:
            await each.wait(max(0.0, end - self._loop.time()))
        for each in hooks:
            each.kill()
        for each in hooks:
            await each.wait()

    def __repr__(self) -> str:
        return f"<LiveRuns {len(self._runs)}>"
