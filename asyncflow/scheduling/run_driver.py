"""The driver of one run: facts go to the journal, and only then to the plan and to subscribers.

    worker ──report──► Dispatcher ──fact──► RunDriver ──► journal ──► plan ──► channel
       ▲                   │  ▲                                        │
       └──────order────────┘  └────────────── take ────────────────────┘

Facts that come in while a batch is being written make the next batch. So the faster they come, the
more events share the cost of one write.

Three queues meet here. The `FactInbox` holds facts that are not in the journal yet; each turn makes
a batch of them. The commands are what the plan, a cancellation or a failure of the
engine has decided; the next turn carries them out. The third belongs to `TaskOrders`: orders of
wide joins whose inputs are on disk. Facts and commands wake the driver, and an order that was
prepared wakes the dispatcher.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from asyncflow._support.commit_points import reached
from asyncflow._support.conditions import Condition, in_thread
from asyncflow._support.event_loop import UncancellableTask
from asyncflow._support.weak_methods import weakly
from asyncflow.errors import AsyncflowError
from asyncflow.events.packing import unpack_events
from asyncflow.events.types import RunStarted
from asyncflow.scheduling.broken_work import check_not_given_up, description_of
from asyncflow.scheduling.commands import FinishRun, HandOn, RetryTask, StopTasks
from asyncflow.scheduling.fact_inbox import FactInbox
from asyncflow.scheduling.facts_to_events import Batch, Recorder
from asyncflow.scheduling.item_streams import ItemStreams
from asyncflow.scheduling.journal_sync import JournalSync
from asyncflow.scheduling.plan import Plan
from asyncflow.scheduling.retry_timers import RetryTimers
from asyncflow.scheduling.run_ending import RunEnding
from asyncflow.scheduling.run_services import BACKLOG_BYTES
from asyncflow.scheduling.task_orders import TaskOrders
from asyncflow.store.manifests import manifests_of
from asyncflow.store.run_index import RunIndex
from asyncflow.values import Failure

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from asyncflow.events.selection import Publication
    from asyncflow.flow.graph import Graph
    from asyncflow.scheduling.commands import Command
    from asyncflow.scheduling.dispatcher import Dispatcher
    from asyncflow.scheduling.facts import Fact, Ran
    from asyncflow.scheduling.resume import OriginRun
    from asyncflow.scheduling.run_identity import RunIdentity
    from asyncflow.scheduling.run_services import RunServices
    from asyncflow.scheduling.take_over import TakeOver
    from asyncflow.store.interface import JournalAppender

_CONGESTED_FACTS: Final = 1024  # workers wait when the journal is so far behind
_GRACES: Final = 2  # the time that a run has to end once it is told to,
_END_SECONDS: Final = 30.0  # plus this: some workers are killed, some journals written


class Publisher(Protocol):
    """Publishes a run's events once its journal has them."""

    def publish(self, news: Sequence[Publication], upto: int) -> None:
        """Publish the events that the journal has up to offset `upto`."""

    def close(self) -> None:
        """Publish nothing more."""


class RunDriver:
    """One run, from its first event in the journal to its last.

    Its parts do not refer to it, so a run that has ended is freed as soon as nobody asks for it.
    """

    _inbox: FactInbox
    orders: TaskOrders

    def __init__(
        self,
        identity: RunIdentity,
        graph: Graph,
        journal: JournalAppender,
        channel: Publisher,
        dispatcher: Dispatcher,
        services: RunServices,
        origin: OriginRun | None = None,
    ) -> None:
        self.identity = identity
        self.number, self.pathspec = identity.number, identity.pathspec
        self.priority = identity.options.priority
        self.max_running_tasks = identity.options.max_running_tasks
        self.opening = identity.opening()
        self.expected = services.expected(identity.flow)
        self.graph = graph
        self.channel = channel
        self.plan = Plan(
            graph,
            finished=origin if origin is not None else (),
            waiting=origin.waiting() if origin is not None else {},
            finish_running=services.finish_running,
        )
        self.finish: FinishRun | None = None
        """How the run finished; None while it goes on."""
        self.error: AsyncflowError | None = None
        """Why the engine could not finish the run, if so."""
        self.over = False
        """Whether the driver has ended, and has nothing open."""
        self.task: asyncio.Task[None] | None = None
        """The asyncio task that drives it, once `start` was called."""
        self.finished = Condition(
            weakly(
                self,
                lambda self: self.over or (self.task is not None and self.task.done()),
                gone=True,
            )
        )
        """Whether the run has ended in any way."""
        self._loop = asyncio.get_running_loop()
        self._journal = journal
        abandon = weakly(self, RunDriver.abandon, gone=None)
        journal.watch(partial(_call_soon, self._loop, abandon))
        self._dispatcher, self._services = dispatcher, services
        self._index = RunIndex(
            graph,
            flow=identity.flow,
            run_id=identity.run_id,
            started=identity.started,
            tags=identity.tags,
        )
        self._streams = ItemStreams(
            self.plan.begun,
            # whether tasks are ready, but none runs except so many that yield items
            weakly(
                self,
                lambda self, yielding: (
                    bool(self.orders.ready)
                    and len(self._recorder) - self.orders.gangs.held_back
                    <= yielding + self.plan.reading
                ),
                gone=False,
            ),
            dispatcher.send_to,
            weakly(self, lambda self, task_id, why: self._stop_tasks((task_id,), why), gone=None),
            origin.compare if origin is not None else None,
        )
        self._recorder = Recorder(
            identity.flow,
            identity.run_id,
            self._index,
            self._streams,
            self.expected,
            manifests_of(identity.stored).resolved,
        )
        self._counted = 0  # events that the meter has counted
        self._commands: list[Command] = []
        self._news = Condition(
            weakly(
                self,
                lambda self: (
                    self._inbox.is_due or bool(self._commands or self._given_up_by) or self._is_late
                ),
                gone=False,
            )
        )
        self._given_up_by = ""  # the exception that has broken off what was to be done for it
        self._ends_by = float("inf")  # by the loop's clock, once it has been told to end
        self._ending = RunEnding(identity, self._recorder, self._index)
        self._retries = RetryTimers(weakly(self, RunDriver._on_retry_due, gone=None))
        self.orders = TaskOrders(
            identity,
            self.plan,
            self._recorder,
            services,
            on_prepared=weakly(self, dispatcher.dispatch, gone=None),
            on_commands=weakly(self, RunDriver._order, gone=None),
            on_failed=abandon,
            on_lost=weakly(self, RunDriver.tell, gone=None),
        )
        """The tasks that are ready, for the dispatcher to take."""
        self._inbox = FactInbox(
            self.plan,
            self._recorder,
            self.orders.gangs,
            loop=self._loop,
            now=lambda: identity.now,
            on_added=self._news.look,
            on_run_failing=weakly(self, RunDriver._hold, gone=None),
            stop_tasks=weakly(self, RunDriver._stop_tasks, gone=None),
        )
        self._take_over: TakeOver | None = None
        if origin is not None:
            from asyncflow.scheduling.take_over import TakeOver

            self._take_over = TakeOver(origin, self.plan, self._recorder, services)
        self._sync = JournalSync(
            journal,
            services,
            goes_on=weakly(
                self, lambda self: self.finish is None and self.error is None, gone=False
            ),
            on_failed=abandon,
        )

    # --- what others tell it ---

    def begin(self, record: bytes) -> None:
        """Take up a run whose first event is in the journal."""
        events = tuple(unpack_events(record, self.identity.flow, self.identity.run_id))
        for event in events:
            self.plan.handle(event)
            if self._take_over is not None and isinstance(event, RunStarted):
                self._take_over.begin(event.manifest)
        self.channel.publish(events, self._journal.size)
        self._count(self._journal.size)

    def start(self, on_driven: Callable[[asyncio.Task[None]], None]) -> None:
        """Begin to drive it, in an asyncio task; `on_driven` is called with that when it ends.

        A cancellation of that task cancels the run instead.
        """
        cancel = weakly(self, RunDriver.cancel, gone=None)
        ask = partial(cancel, "all asyncio tasks were cancelled", by_shutdown=True)
        self.task = UncancellableTask(self.drive(), name=repr(self), ask=ask)
        self.task.add_done_callback(on_driven)

    def tell(self, *facts: Fact | Ran) -> None:
        """Add facts; they are journalled with the next batch, or with the end of their gang."""
        self._inbox.add(*facts)

    def _hold(self) -> None:
        """Begin no further task while the failure that ends the run is being written."""
        self.orders.held = True
        self._dispatcher.stop(self, "another task of the run failed", running=False)

    def _stop_tasks(self, tasks: Collection[int], reason: str) -> None:
        self._dispatcher.stop_tasks(self, tasks, reason)

    def cancel(self, reason: str, *, by_shutdown: bool = False) -> None:
        """Begin to end the run. Harmless if it is ending already.

        `by_shutdown` says that it has to stop with its engine.
        """
        seconds = _GRACES * self._services.grace_seconds + _END_SECONDS
        self._ends_by = min(self._ends_by, self._loop.time() + seconds)
        self._order(self.plan.cancel(reason, by_shutdown=by_shutdown))

    def break_off(self) -> None:
        """End the run without a last event, as soon as no write is under way."""
        self._ends_by = 0.0
        self._news.look()

    def give_up(self, by: str) -> None:
        """End the run without a last event, now: what became of its tasks may be lost.

        `by` is the exception that has broken off what was to be done for it.
        """
        self._given_up_by = self._given_up_by or by
        self._news.look()

    @property
    def _is_late(self) -> bool:
        return self._loop.time() >= self._ends_by

    def abandon(self, error: AsyncflowError) -> None:
        """Fail the run for a reason that is not a failure of one of its tasks."""
        failure = Failure("", "", 0, type(error).__name__, str(error), "")
        self._order(self.plan.fail(failure))

    def _order(self, commands: list[Command]) -> None:
        if not self.over:
            self._commands += commands
            self._news.look()

    # --- what the dispatcher asks and tells ---

    @property
    def congested(self) -> bool:
        """Whether so much waits for the journal that no further task should begin."""
        return len(self._inbox) > _CONGESTED_FACTS

    @property
    def backlog_bytes(self) -> int:
        """Output that has come in but is not in the journal yet."""
        return self._inbox.output_bytes

    @property
    def running_tasks(self) -> list[str]:
        """The tasks that have begun and not ended, as `step/task`."""
        return self._recorder.running()

    def on_started(self, tasks: Iterable[int], pid: int, node: str) -> None:
        """Note that these tasks have begun in this process of this node."""
        self._recorder.on_started(tasks, pid, node)

    # --- the loop ---

    async def drive(self) -> None:
        """Run to the end. Errors end up in `finish` or `error`, and are not raised.

        Raises:
            SystemExit: A signal handler raised it right here, or another exception that ends the
                program. The run is then interrupted.
        """
        try:
            await self._take_over_all()
            self._dispatcher.dispatch(self)
            while self.finish is None:
                await self._turn()
            await self._finish(self.finish)
        except AsyncflowError as error:
            self.error = error
        except Exception as error:  # noqa: BLE001 - a defect of ours: this run ends, the engine goes on
            self.error = AsyncflowError(f"the engine failed: {type(error).__name__}: {error}")
            self.error.__cause__ = error
        except BaseException as error:
            self.error = AsyncflowError(f"the run was interrupted by {type(error).__name__}")
            self.error.__cause__ = error
            raise
        finally:
            try:
                await self._settle()
            finally:
                self.let_go()

    async def _settle(self) -> None:
        if self.error is not None:
            self.plan.cancel(str(self.error))
            self._dispatcher.stop(self, str(self.error))
        await self._sync.close()

    def let_go(self) -> None:
        """Close what it has open, and wake tasks that wait for its end. Harmless when repeated."""
        try:
            self._retries.close()
            self._streams.close()
            self.orders.close()
            self._journal.close()
            if self._take_over is not None:
                self._take_over.close()
            self._dispatcher.leave(self)
            self.channel.close()
        finally:
            self.over = True
            self.finished.look()  # or later: see `asyncflow._support.conditions`

    async def _turn(self) -> None:
        await self._news.wait()
        check_not_given_up(self._given_up_by)
        if not self._inbox.facts and not self._commands and self._is_late:
            raise AsyncflowError("the run was told to end, but did not")
        await self._services.loop_budget.turn()
        was_shut, additions = self.congested or self.orders.held, self.plan.additions
        batch = self._new_batch()
        self._collect(batch)
        commands, self._commands = self._commands, []
        await self._publish(batch, commands)
        self.orders.held = self.orders.held and self._inbox.has_failures
        await self._take_over_all()
        for command in commands:
            await self._carry_out(command)
        if was_shut or commands or self.plan.additions != additions:
            self._dispatcher.dispatch(self)

    def _new_batch(self) -> Batch:
        return Batch(self._journal.size, self.identity.now)

    async def _take_over_all(self) -> None:
        """Take over finished tasks from the origin run, as they become ready."""
        if self._take_over is None:
            return
        while taken := await self._take_over.take(self._new_batch):
            self._commands += taken.waiting
            await self._publish(taken.batch, self._commands)

    def _collect(self, batch: Batch) -> None:
        """Move facts from the inbox to a batch, as long as there is time."""
        until = self._services.loop_budget.until()
        self._inbox.collect(batch, lambda: self._loop.time() <= until)
        if self.backlog_bytes < BACKLOG_BYTES:
            self._dispatcher.resume_paused_workers(self)

    async def _publish(self, batch: Batch, commands: list[Command]) -> None:
        """Disk before news: the plan and the subscribers learn what the journal has."""
        if not batch.frames:
            return
        await self._write(batch)
        await self._services.loop_budget.turn()
        for event in batch.events:
            commands += self.plan.handle(event)
        self.channel.publish(batch.news, self._journal.size)
        for order in self.orders.more_inputs():
            self._dispatcher.send_to(order)
        if not self.identity.durable:
            self._sync.written()

    async def _write(self, batch: Batch) -> None:
        data = batch.data()
        await in_thread(self._services.disk, self._journal.write, data)
        self._count(len(data))

    def _count(self, size: int) -> None:
        self._services.meter.count(self._recorder.seq - self._counted, size)
        self._counted = self._recorder.seq

    async def _carry_out(self, command: Command) -> None:
        match command:
            case RetryTask():
                batch = self._new_batch()
                self._recorder.retried(command, batch)
                await self._publish(batch, [])
                self._retries.start(command.task_id, command.after_seconds)
            case HandOn():
                self._commands += self.plan.hand_on(command.task_id)
            case StopTasks():
                self.orders.drop_prepared()
                self._inbox.give_up_stand_ins()
                self._dispatcher.stop(self, command.reason, running=command.running)
                if command.waiting and not command.running:
                    self._stop_tasks(command.waiting, command.reason)
            case FinishRun():
                self.finish = command

    def _on_retry_due(self, task_id: int) -> None:
        try:
            self.plan.wake(task_id)
            self._dispatcher.dispatch(self)
        except BaseException as error:
            self.give_up(description_of(error))
            raise

    # --- the end ---

    async def _finish(self, finish: FinishRun) -> None:
        check_not_given_up(self._given_up_by)
        batch = self._new_batch()
        event = self._ending.event(finish, batch)
        last = self._recorder.add(event, batch)
        reached("run.end")
        disk = self._services.disk
        # The end is not published if the journal is no longer where readers look for it.
        await in_thread(disk, self._journal.check_in_place)
        await self._write(batch)
        await in_thread(disk, self._ending.deliver, self._journal)
        reached("run.ended")
        self.plan.handle(event)
        self._index.end(last, self.plan.status, batch.microseconds)
        await in_thread(disk, self._ending.summarize, self._journal.size)
        self.channel.publish(batch.news, self._journal.size)

    def __repr__(self) -> str:
        running = len(self._recorder)
        return f"<RunDriver {self.pathspec} {self.orders.ready} ready, {running} running>"


def _call_soon(
    loop: asyncio.AbstractEventLoop,
    function: Callable[[AsyncflowError], None],
    error: AsyncflowError,
) -> None:
    """Call a function on the event loop; from any thread."""
    with suppress(RuntimeError):  # the program has closed the loop
        loop.call_soon_threadsafe(function, error)
