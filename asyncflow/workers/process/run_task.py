"""One attempt of a task: runs its step, stores the artifacts, and makes the report."""

from __future__ import annotations

import shlex
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from asyncflow._quick_classes import NamedTuple
from asyncflow._support.modules import has_travelled
from asyncflow._support.tracebacks import (
    describe_exception,
    too_long,
    why_no_terminal,
    with_final_line,
)
from asyncflow.errors import TaskTimeoutError
from asyncflow.flow.step_options import options_of
from asyncflow.workers.messages import Failed, new_succeeded
from asyncflow.workers.process import output_capture, step_forks
from asyncflow.workers.process.step_forks import EndingForks
from asyncflow.workers.process.task import TaskView
from asyncflow.workers.process.task_result import TaskResult, persist

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from asyncflow.values import Outcome
    from asyncflow.workers.messages import (
        AttemptKey,
        ReportMessage,
        StartTask,
        Succeeded,
        Usage,
    )
    from asyncflow.workers.process.arrivals import Arrivals
    from asyncflow.workers.process.artifact_threads import OffLoop
    from asyncflow.workers.process.async_reads import AsyncReads
    from asyncflow.workers.process.resource_usage import UsageMeter
    from asyncflow.workers.process.run import OpenRun
    from asyncflow.workers.process.shared_resources import SharedResources
    from asyncflow.workers.process.stop_signals import StopSignals
    from asyncflow.workers.process.task_cards import TaskCards

Result = TypeVar("Result")


class TaskHost(Protocol):
    """What an attempt needs of the worker that runs it."""

    @property
    def signals(self) -> StopSignals:
        """The signals that ask the worker to stop a task."""

    @property
    def holder(self) -> SharedResources:
        """The shared resources."""

    @property
    def meter(self) -> UsageMeter:
        """Measures what a task uses that has the process for itself."""

    def report(self, *messages: ReportMessage) -> None:
        """Send reports to the engine at once."""

    def wait_for_more(self, key: AttemptKey) -> int:
        """Wait until the generator of a `def` step may go on; return up to how many items."""

    def check_descriptors(self, run: OpenRun | None = None) -> None:
        """Restore descriptors 1 and 2; end this process if a step has closed the worker's own."""


class ToldAsync(NamedTuple):
    """What an async step is told while it runs."""

    wait_for_more: Callable[[], Awaitable[int]]
    """Waits until its generator may go on; returns up to how many items."""
    arrivals: Arrivals | None
    """Its inputs, if it has begun before the last of them."""
    used: Callable[[], Usage]
    """What it has used by now, as far as that is known."""


class TaskAttempt:
    """One attempt of a task: runs its step, stores the artifacts, and returns the report."""

    __slots__ = (
        "_began",
        "_is_asked",
        "_is_late",
        "_off_loop",
        "_order",
        "_reads",
        "_run",
        "_task",
        "_told",
        "_used",
        "_worker",
    )

    def __init__(
        self,
        worker: TaskHost,
        run: OpenRun,
        order: StartTask,
        began: float,
        is_asked: Callable[[], bool],
        is_late: Callable[[], bool] = lambda: False,
        *,
        off_loop: OffLoop | None = None,
        told: ToldAsync | None = None,
    ) -> None:
        """Prepare the attempt, without running it.

        Args:
            worker: The worker that runs it.
            run: Its run.
            order: The order to run it.
            began: When it began, by `perf_counter`.
            is_asked: Whether the engine has asked it to end.
            is_late: Whether that was because its time was over.
            off_loop: The threads, for an async step.
            told: What an async step is told.
        """
        self._worker, self._run, self._order, self._began = worker, run, order, began
        self._is_asked, self._is_late, self._off_loop = is_asked, is_late, off_loop
        self._reads: AsyncReads | None = None
        if off_loop is not None:
            from asyncflow.workers.process.async_reads import AsyncReads

            self._reads = AsyncReads(off_loop)
        self._told = told
        self._task: TaskView | None = None
        self._used = worker.meter.end if told is None else told.used

    def carry_out_now(self) -> ReportMessage:
        """Run a `def` step, which awaits nothing, and return the report of its end."""
        worker, run, order = self._worker, self._run, self._order
        process = step_forks.present  # as `EndingForks` does, which costs two calls more
        try:
            task = self._prepare()
            with task.entered():
                if order.caught:
                    task.hand_on(order.caught)
                else:
                    asked = task.node.shared
                    task.call(worker.holder.open(run.flow_class, asked) if asked else {})
                if step_forks.present != process:
                    step_forks.end_fork(None)
                worker.check_descriptors(run)
                if task.transition is None or task.transition.foreach is None:
                    outcome = persist(task, None)
                else:
                    outcome = self._store_now(TaskResult(run, order, task))
                if task.cards is not None and task.cards.is_needed:
                    outcome = outcome._replace(cards=task.cards.finish())
                del task.flow  # it refers to the task: only the collector would end the cycle
        except BaseException as error:  # noqa: BLE001 - SystemExit and KeyboardInterrupt of a step are failures like any other
            if step_forks.present != process:
                step_forks.end_fork(error)
            worker.check_descriptors(run)
            return _awaiting_nothing(self._failure(error))
        return self._succeeded(outcome)

    async def carry_out(self) -> ReportMessage:
        """Run an async step, and return the report of its end."""
        worker, run, order = self._worker, self._run, self._order
        try:
            task = self._prepare()
            with task.entered():
                with EndingForks():
                    if order.caught:
                        task.hand_on(order.caught)
                    else:
                        asked, holder = task.node.shared, worker.holder
                        shared = await holder.open_async(run.flow_class, asked) if asked else {}
                        await task.call_async(shared)
                        if self._reads is not None:
                            await self._reads.loads_ended()  # their output is the task's
                worker.check_descriptors(run)
                outcome = await self._store(task)
                if task.cards is not None and task.cards.is_needed:
                    outcome = outcome._replace(cards=await self._finish_cards(task.cards))
        except BaseException as error:  # noqa: BLE001 - SystemExit and KeyboardInterrupt of a step are failures like any other
            worker.check_descriptors(run)
            return await self._failure(error)
        return self._succeeded(outcome)

    def _prepare(self) -> TaskView:
        run, order = self._run, self._order
        if run.started.trace:
            from asyncflow.workers.process.tracing import enter_span

            enter_span(run.started.trace, order.key)
        arrivals = self._told and self._told.arrivals
        self._task = TaskView(run, order, self._reads, arrivals, self._worker.report)
        return self._task

    def _succeeded(self, outcome: Outcome) -> Succeeded:
        seconds = time.perf_counter() - self._began
        printed = output_capture.spooled() if self._off_loop is None else output_capture.written()
        return new_succeeded((self._order.key, seconds, outcome, printed, self._used()))

    async def _finish_cards(self, cards: TaskCards) -> bytes:
        """Store what the step has put on its cards."""
        if self._off_loop is None:
            return cards.finish()
        stored = await self._off_loop.to_the_end(cards.finish, lambda: None)
        self._worker.check_descriptors(self._run)  # others ran meanwhile
        return stored

    def _store_now(self, result: TaskResult) -> Outcome:
        if not result.is_streamed():
            return result.persist()
        worker, key = self._worker, self._order.key
        return result.stream(worker.report, lambda: worker.wait_for_more(key))

    async def _store(self, task: TaskView) -> Outcome:
        result = TaskResult(self._run, self._order, task)
        if self._off_loop is None:
            return self._store_now(result)
        if result.is_streamed():
            stored = await self._stream(result, self._off_loop)
        elif result.is_stored_at_once():
            stored = result.persist()
        else:
            stored = await result.persist_off_loop(self._off_loop, self._is_caught_late)
            self._worker.check_descriptors(self._run)  # others ran meanwhile
        if self._reads is not None:
            await self._reads.checked()
        return stored

    async def _stream(self, result: TaskResult, off_loop: OffLoop) -> Outcome:
        if self._told is None:
            return self._store_now(result)
        stored = await result.stream_async(self._worker.report, self._told.wait_for_more, off_loop)
        self._worker.check_descriptors(self._run)
        return stored

    async def _failure(self, error: BaseException) -> Failed:
        """The report of a failure, with what was on the cards of the task by then."""
        report, task = await self._failure_report(error), self._task
        if task is None or task.cards is None or isinstance(error, MemoryError):
            return report
        with task.entered():
            cards = task.cards.finish(failed=True)
        if not cards:
            return report
        if report.outcome is not None:
            report = report._replace(outcome=report.outcome._replace(cards=cards))
        return report._replace(cards=cards, spooled=self._printed())

    async def _failure_report(self, error: BaseException) -> Failed:
        """The report of a failure. It has the artifacts, unless another attempt follows.

        If the step's `@catch` handles it, they are passed on; else they are for the client. If they
        cannot be stored, it is reported without them, and a stand-in passes on what is caught.
        """
        task, signals = self._task, self._worker.signals
        damage: BaseException | None = None
        if self._reads is None:
            error = signals.outlast(error)
        else:
            error = await signals.outlast_on_loop(error)
            with suppress(BaseException):  # the attempt is cancelled, and fails all the same
                await self._reads.loads_ended()
            if not self._is_asked():
                damage = await self._reads.damage()
        retried = retry_on(self._run, self._order)
        printed = self._printed()
        step_into = self._step_command
        report = failed(self._order, self._began, damage or error, printed, retried, step_into)
        report = report._replace(usage=self._used())
        if task is None or damage:
            return report
        told = self._late(report, retried) if self._is_asked() else report
        if told is None:
            return report
        caught = task.catches(may_retry=told.may_retry)
        if not caught and not self._leaves(task, error, may_retry=told.may_retry):
            return told
        try:
            with task.entered():
                if caught:
                    task.hand_on((told.key.attempt, *told[2:5]))
                else:
                    task.leave()
                outcome = await self._store(task)
        except BaseException as second:  # noqa: BLE001 - the artifacts' own methods may raise anything
            why = describe_exception(second)
            text = f"The artifacts of this attempt are not kept: {why.type}: {why.message}"
            print(text, file=sys.stderr)  # noqa: T201 - into the task's log
            return told._replace(spooled=self._printed())
        if not caught:
            return told._replace(left=outcome.manifest, spooled=self._printed())
        return told._replace(outcome=outcome, spooled=self._printed())

    def _leaves(self, task: TaskView, error: BaseException, *, may_retry: bool) -> bool:
        """Whether to keep, for the client, what a step had set that has failed."""
        if self._order.caught or isinstance(error, MemoryError):  # storing takes more of it
            return False
        return task.is_last(may_retry=may_retry)

    def _is_caught_late(self) -> bool:
        """Whether it ran out of time and its step's `@catch` handles that."""
        on = retry_on(self._run, self._order)
        task = self._task
        return self._is_late() and task is not None and task.catches(may_retry=retries_late(on))

    def _late(self, report: Failed, on: tuple[type[BaseException], ...]) -> Failed | None:
        """The failure of a step that the engine has stopped for being out of time.

        None if its time was not over: then its run is ending, and nothing is caught.
        """
        if not self._is_late():
            return None
        limit = self._run.graph[self._order.step].options["timeout"]
        name = f"{TaskTimeoutError.__module__}.{TaskTimeoutError.__qualname__}"
        message = too_long(limit["seconds"])
        return report._replace(
            exception_type=name,
            message=message,
            traceback=with_final_line(report.traceback, name, message),
            may_retry=retries_late(on),
        )

    def _step_command(self) -> str:
        """The command that runs the task again, alone, in a terminal."""
        from asyncflow._support.settings import store_arguments

        order, run = self._order, self._run
        task = f"{run.pathspec}/{order.step}/{order.key.task}"
        return shlex.join(["asyncflow", "step", task, *store_arguments(run.order.store)])

    def _printed(self) -> tuple[int, int]:
        return output_capture.spooled() if self._off_loop is None else output_capture.written()


def _awaiting_nothing(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """The result of what awaits nothing, because it is about a `def` step."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: Result = end.value
        return result
    raise AssertionError("a `def` step was awaited")


def retry_on(run: OpenRun, order: StartTask) -> tuple[type[BaseException], ...]:
    """The exceptions that the step's `@retry` covers; empty for all."""
    options = options_of(getattr(run.flow_class, order.step, None))
    return options.retry_on if options is not None else ()


def retries_late(on: tuple[type[BaseException], ...]) -> bool:
    """Whether a `@retry` for these exceptions covers an attempt that ran out of time."""
    return not on or issubclass(TaskTimeoutError, on)


def failed(
    order: StartTask,
    began: float,
    error: BaseException,
    spooled: tuple[int, int],
    on: tuple[type[BaseException], ...] = (),
    step_command: Callable[[], str] = str,
) -> Failed:
    """The report of a failure; never raises, whatever the exception's methods do."""
    note = why_no_terminal(error, step_command)
    if isinstance(error, ModuleNotFoundError) and has_travelled():
        from asyncflow.workers.process.travelled_code import what_was_sent

        note = what_was_sent()
    with EndingForks():  # its text may be made by the user's code
        described = describe_exception(error).with_note(note)
    seconds = time.perf_counter() - began
    may_retry = not on or isinstance(error, on)
    return Failed(order.key, seconds, *described, may_retry, spooled)
