"""The driver of one run: facts go to the journal, and only then to the plan and to subscribers.

    worker ──report──► Dispatcher ──fact──► RunDriver ──► journal ──► plan ──► channel
       ▲                   │  ▲                                        │
       └──────order────────┘  └────────────── take ────────────────────┘

Facts that come in while a batch is being written make the next batch. So the faster they come, the
more events share the cost of one write.

A driver has three queues. The inbox holds facts that are not in the journal yet. The commands are
what the plan, a cancellation or a failure of the engine has decided, and the next turn carries them
out. The prepared orders are wide joins whose inputs are on disk, and which a worker can take.
"""

from __future__ import annotations

import asyncio
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

from asyncflow._support.commit_points import reached
from asyncflow._support.conditions import Condition, in_thread
from asyncflow.errors import AsyncflowError, JournalError
from asyncflow.events.packing import unpack_events
from asyncflow.scheduling.facts import Lost
from asyncflow.scheduling.facts_to_events import OUTPUT_BYTES, Batch, Recorder
from asyncflow.scheduling.input_offsets import InputOffsets
from asyncflow.scheduling.journal_sync import JournalSync
from asyncflow.scheduling.plan import (
    CloneTask,
    FinishRun,
    HandOn,
    Plan,
    RetryTask,
    StopTasks,
    Verdict,
)
from asyncflow.scheduling.run_ending import RunEnding
from asyncflow.scheduling.run_services import BACKLOG_BYTES
from asyncflow.store.run_index import RunIndex
from asyncflow.values import Failure, indexes_of
from asyncflow.workers.messages import MAX_INPUTS_IN_ORDER, Failed, Logged, Opening, StartTask

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from asyncflow.events.selection import Publication
    from asyncflow.flow.graph import Graph
    from asyncflow.scheduling import plan
    from asyncflow.scheduling.dispatcher import Dispatcher
    from asyncflow.scheduling.facts import Fact
    from asyncflow.scheduling.resume import OriginRun
    from asyncflow.scheduling.run_identity import RunIdentity
    from asyncflow.scheduling.run_services import RunServices
    from asyncflow.store.interface import JournalAppender

_BATCH_FACTS: Final = 128  # a batch of them costs the event loop some 3 ms
_LEAST_FACTS: Final = (
    16  # in a batch, if there are, however little time is left: each costs a write
)
_GRACES: Final = 2  # that a run has to end once it is told to,
_END_SECONDS: Final = 30.0  # and so long beyond: some workers are killed, some journals written
_CONGESTED_FACTS: Final = 1024  # workers wait when the journal is so far behind


class Publisher(Protocol):
    """Where a run's events go once its journal has them."""

    def publish(self, news: Sequence[Publication], upto: int) -> None:
        """Tell subscribers what the journal has up to offset `upto`."""

    def close(self) -> None:
        """Tell subscribers that nothing more will come."""


class RunDriver:
    """One run, from its first event in the journal to its last."""

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
        self.number = identity.number
        self.graph = graph
        self.channel = channel
        self.plan = Plan(
            graph,
            finished=origin if origin is not None else (),
            waiting=origin.waiting() if origin is not None else {},
            finish_running=services.finish_running,
        )
        self.finish: FinishRun | None = None
        """What the run came to; None while it goes on."""
        self.error: AsyncflowError | None = None
        """Why the run was broken off, if it was."""
        self.over = False
        """Whether the driver has ended, and holds nothing open."""
        self.task: asyncio.Task[None] | None = None
        """The asyncio task that drives it."""
        self.finished = Condition(lambda: self.over or (self.task is not None and self.task.done()))
        """Set once the run has ended, well or not."""
        self.backlog_bytes = 0
        """Output that has come in and is not in the journal yet."""
        self._journal = journal
        self._dispatcher, self._services = dispatcher, services
        self._origin = origin
        self._index = RunIndex(
            graph,
            flow=identity.flow,
            run_id=identity.run_id,
            started=identity.started,
            tags=identity.tags,
        )
        self._recorder = Recorder(
            identity.flow, identity.run_id, self._index, services.expected(identity.flow)
        )
        self._counted = 0  # events that the meter has counted
        self._inbox: deque[Fact] = deque()
        self._failing = False  # whether the inbox holds a failure that will end the run
        self._commands: list[plan.Command] = []
        self._news = Condition(lambda: bool(self._inbox or self._commands) or self._is_late)
        self._ends_by = float("inf")  # by the loop's clock, once it has been told to end
        self._prepared: deque[StartTask] = deque()
        self._retries: dict[int, asyncio.TimerHandle] = {}
        self._loop = asyncio.get_running_loop()
        self._ending = RunEnding(identity, self._recorder, self._index)
        self._inputs = InputOffsets(identity.stored, self._index.table.ended_at)
        self._sync = JournalSync(
            journal,
            services,
            goes_on=lambda: self.finish is None and self.error is None,
            on_failed=self.abandon,
        )

    # --- what others tell it ---

    def begin(self, record: bytes) -> None:
        """Take up a run whose first event is in the journal."""
        events = tuple(unpack_events(record, self.identity.flow, self.identity.run_id))
        for event in events:
            self.plan.handle(event)
        self.channel.publish(events, self._journal.size)
        self._count(self._journal.size)

    def tell(self, fact: Fact) -> None:
        """A fact has come in; it is journalled with the next batch."""
        self._inbox.append(fact)
        self._news.look()
        if isinstance(fact, Logged):
            self.backlog_bytes += len(fact.data)
        elif isinstance(fact, Failed | Lost) and self._ends_run(fact):
            self._failing = True  # no further task begins while that is being written
            self._dispatcher.stop(self, "another task of the run failed", running=False)

    def _ends_run(self, fact: Failed | Lost) -> bool:
        return self._verdict(fact) is Verdict.FAIL and not self.plan.stopping

    def _verdict(self, fact: Failed | Lost) -> Verdict:
        if isinstance(fact, Failed) and fact.outcome is not None:
            return Verdict.CATCH
        return self.plan.verdict(fact.task_id, may_retry=fact.may_retry)

    def cancel(self, reason: str) -> None:
        """Begin to end the run. Harmless if it is ending already."""
        seconds = _GRACES * self._services.grace_seconds + _END_SECONDS
        self._ends_by = min(self._ends_by, self._loop.time() + seconds)
        self._order(self.plan.cancel(reason))

    def break_off(self) -> None:
        """End the run without a last event, as soon as no write is under way."""
        self._ends_by = 0.0
        self._news.look()

    @property
    def _is_late(self) -> bool:
        return self._loop.time() >= self._ends_by

    def abandon(self, error: AsyncflowError) -> None:
        """Fail the run for a reason that is not a failure of one of its tasks."""
        failure = Failure("", "", 0, type(error).__name__, str(error), "")
        self._order(self.plan.fail(failure))

    def _order(self, commands: list[plan.Command]) -> None:
        if not self.over:
            self._commands += commands
            self._news.look()

    # --- what the dispatcher asks and tells ---

    @property
    def opening(self) -> Opening:
        """What makes the run known to a worker."""
        identity = self.identity
        where = identity.store, identity.flow, identity.run_id
        how = identity.surroundings, identity.durable
        return Opening(identity.number, *where, *how, variables=identity.variables)

    @property
    def pathspec(self) -> str:
        """`Flow/run`."""
        return f"{self.identity.flow}/{self.identity.run_id}"

    @property
    def expected(self) -> Mapping[str, float]:
        """For each step that ended at least once: seconds for a task."""
        return self._recorder.expected

    @property
    def priority(self) -> int:
        """Runs of a higher priority are served first."""
        return self.identity.options.priority

    @property
    def max_running_tasks(self) -> int:
        """How many of its tasks may be assigned to workers at a time; 0 for any number."""
        return self.identity.options.max_running_tasks

    @property
    def ready(self) -> int:
        """How many tasks could be taken now."""
        return len(self._prepared) + self.plan.ready

    @property
    def congested(self) -> bool:
        """Whether so much waits for the journal that no further task should begin."""
        return len(self._inbox) > _CONGESTED_FACTS

    def next_step(self) -> str | None:
        """The step of the task that would be taken next."""
        if self._failing:
            return None
        return self._prepared[0].step if self._prepared else self.plan.next_step()

    def postpone(self, steps: Collection[str]) -> bool:
        """Put a task of another step first; False if none is ready."""
        return not self._prepared and self.plan.postpone(steps)

    def take(self) -> StartTask | None:
        """The next ready task as an order; None when it has to be prepared first."""
        if self._prepared:
            return self._prepared.popleft()
        for task in self.plan.take(1):
            self._recorder.open(task)
            if len(task.inputs) <= MAX_INPUTS_IN_ORDER:
                return self._start(task, self._inputs.offsets(task.inputs), ())
            preparing = self._loop.run_in_executor(self._services.disk, self._spill, task)
            preparing.add_done_callback(partial(self._on_spilled, task.task_id))
        return None

    def give_back(self, task_id: int) -> None:
        """A task that was taken has not begun: it is ready again."""
        self._recorder.drop(task_id)
        self._order(self.plan.give_back(task_id))

    def seated(self, task_id: int, pid: int) -> None:
        """The task has begun in this process."""
        attempt = self._recorder.get(task_id)
        if attempt is not None:
            attempt.pid = pid

    def _start(self, task: plan.BeginTask, inputs: bytes, inputs_at: Sequence[Any]) -> StartTask:
        ended_at = self._index.table.ended_at
        stack = [ended_at(splitter) for splitter in task.stack]
        path = indexes_of(task.path) if self.graph.has_conditions else task.path
        key = task.step, task.task_id, task.attempt, path
        caught = task.caught
        told = (caught.attempt, caught.type, caught.message, caught.traceback) if caught else ()
        return StartTask(self.number, *key, stack, inputs, inputs_at, told)

    def _spill(self, task: plan.BeginTask) -> StartTask:
        """Write a wide join's inputs to a file; in a thread."""
        return self._start(task, b"", self._inputs.spill(task.task_id, task.inputs))

    def _on_spilled(self, task_id: int, spilled: asyncio.Future[StartTask]) -> None:
        if self.over:
            return
        error = spilled.exception()
        if error is not None:
            self.abandon(JournalError(f"cannot write the inputs of a join: {error}"))
        if self.plan.stopping:
            self.give_back(task_id)
        else:
            self._prepared.append(spilled.result())
            self._dispatcher.dispatch(self)

    # --- the loop ---

    async def drive(self) -> None:
        """Run to the end. What went wrong is in `finish` or `error`, and is not raised.

        Raises:
            SystemExit: A signal's handler has raised it, or another one that ends the program, just
                here. The run is broken off, and is interrupted.
        """
        try:
            await self._take_over()
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
            self.error = AsyncflowError(f"the run was broken off by {type(error).__name__}")
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
        """Close what it has open, and wake those who wait for its end. Harmless when repeated."""
        try:
            for (
                due
            ) in self._retries.values():  # a timer would keep the run in memory until it fires
                due.cancel()
            self._journal.close()
            if self._origin is not None:
                self._origin.close()
            self._dispatcher.leave(self)
            self.channel.close()
        finally:
            self.over = True
            self.finished.look()  # or later: see `asyncflow._support.conditions`

    async def _turn(self) -> None:
        await self._news.wait()
        if not self._inbox and not self._commands and self._is_late:
            raise AsyncflowError("the run was told to end, and did not")
        await self._services.loop_budget.turn()
        batch = self._new_batch()
        self._collect(batch)
        commands, self._commands = self._commands, []
        await self._publish(batch, commands)
        self._failing = self._failing and any(
            isinstance(each, Failed | Lost) for each in self._inbox
        )
        await self._take_over()
        for command in commands:
            await self._carry_out(command)
        self._dispatcher.dispatch(self)

    def _new_batch(self) -> Batch:
        return Batch(self._journal.size, self.identity.now)

    async def _take_over(self) -> None:
        """Take over from the origin run whatever is ready and finished there."""
        origin = self._origin
        if origin is None:
            return
        while taken := self.plan.clone(_BATCH_FACTS):
            self._commands += [command for command in taken if isinstance(command, RetryTask)]
            clones = [command for command in taken if isinstance(command, CloneTask)]
            batch = self._new_batch()
            results = await in_thread(
                self._services.disk,
                lambda wanted: [origin.result(clone.step, clone.path) for clone in wanted],
                clones,
            )
            await self._services.loop_budget.turn()
            for clone, (run_id, result) in zip(clones, results, strict=True):
                self._recorder.cloned(clone, result, run_id, batch)
            await self._publish(batch, self._commands)

    def _collect(self, batch: Batch) -> None:
        """Move facts from the inbox to a batch, as long as there is time."""
        until = self._services.loop_budget.until()
        for number in range(min(len(self._inbox), _BATCH_FACTS)):
            if number >= _LEAST_FACTS and self._loop.time() > until:
                break
            fact = self._inbox.popleft()
            if isinstance(fact, Logged):
                self.backlog_bytes -= len(fact.data)
            verdict = None
            if isinstance(fact, Failed | Lost):
                verdict = self._verdict(fact)
            self._recorder.record(fact, batch, verdict=verdict)
            if batch.output_bytes > OUTPUT_BYTES:
                break
            if verdict is Verdict.FAIL and not self.plan.stopping:
                break  # the plan must hear that the run is ending before it judges the next failure
        if self.backlog_bytes < BACKLOG_BYTES:
            self._dispatcher.resume_paused_workers()

    async def _publish(self, batch: Batch, commands: list[plan.Command]) -> None:
        """Disk before news: the plan and the subscribers learn what the journal has."""
        if not batch.frames:
            return
        await self._write(batch)
        await self._services.loop_budget.turn()
        for event in batch.events:
            commands += self.plan.handle(event)
        self.channel.publish(batch.news, self._journal.size)
        if not self.identity.durable:
            self._sync.written()

    async def _write(self, batch: Batch) -> None:
        data = batch.data()
        await in_thread(self._services.disk, self._journal.write, data)
        self._count(len(data))

    def _count(self, size: int) -> None:
        self._services.meter.count(self._recorder.seq - self._counted, size)
        self._counted = self._recorder.seq

    async def _carry_out(self, command: plan.Command) -> None:
        match command:
            case RetryTask():
                batch = self._new_batch()
                self._recorder.retried(command, batch)
                await self._publish(batch, [])
                self._await_retry(command)
            case HandOn():
                self._commands += self.plan.hand_on(command.task_id)
            case StopTasks():
                while self._prepared:
                    self.give_back(self._prepared.popleft().task_id)
                self._dispatcher.stop(self, command.reason, running=command.running)
            case FinishRun():
                self.finish = command

    def _await_retry(self, command: RetryTask) -> None:
        due = self._loop.call_later(command.after_seconds, self._on_retry_due, command.task_id)
        self._retries[command.task_id] = due

    def _on_retry_due(self, task_id: int) -> None:
        del self._retries[task_id]
        self.plan.wake(task_id)
        self._dispatcher.dispatch(self)

    # --- the end ---

    async def _finish(self, finish: FinishRun) -> None:
        batch = self._new_batch()
        event = self._ending.event(finish, batch)
        last = self._recorder.add(event, batch)
        reached("run.end")
        disk = self._services.disk
        # The end is not published if the journal is no longer where readers look for it.
        await in_thread(disk, self._journal.check_in_place)
        await self._write(batch)
        reached("run.ended")
        self.plan.handle(event)
        self._index.end(last, self.plan.status, batch.microseconds)
        await in_thread(disk, self._ending.summarize, self._journal.size)
        self.channel.publish(batch.news, self._journal.size)

    def __repr__(self) -> str:
        identity = self.identity
        running = len(self._recorder)
        return (
            f"<RunDriver {identity.flow}/{identity.run_id} {self.ready} ready, {running} running>"
        )
