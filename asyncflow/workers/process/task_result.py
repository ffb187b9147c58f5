"""The result of a task: what its step passes on is stored once the step has ended."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from asyncflow import codec
from asyncflow.errors import TransitionError
from asyncflow.flow.bound_task import artifacts_of
from asyncflow.workers.process import step_forks
from asyncflow.workers.process.step_forks import EndingForks, end_if_forked

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from asyncflow.errors import ArtifactPickleError
    from asyncflow.values import Outcome
    from asyncflow.workers.messages import StartTask, Yielded
    from asyncflow.workers.process.artifact_threads import OffLoop
    from asyncflow.workers.process.run import OpenRun
    from asyncflow.workers.process.task import TaskView

Result = TypeVar("Result")


def _report_lost(error: ArtifactPickleError) -> None:
    print(f"Not kept: {error}", file=sys.stderr)  # noqa: T201 - into the task's log


def _leave_out(error: ArtifactPickleError) -> None:
    """Say nothing: nobody reads what a task leaves without knowing that it has failed."""


def persist(task: TaskView, foreach: str | None) -> Outcome:
    """Store new and changed values, and return the task's result.

    `foreach` is the name of the artifact that the step fans out over, if it does.

    Raises:
        TransitionError: The step has not said where it goes on.
    """
    node = task.node
    if node.next and task.transition is None and not task.is_left:
        message = f"the step {task.step!r} ended without self.next(...)"
        raise TransitionError(message, step=task.step, file=node.file, line=node.line)
    on_lost = None if not task.failed else _leave_out if task.is_left else _report_lost
    return task.artifacts.store(task, task.flow, foreach, on_lost)


class TaskResult:
    """Stores what a task passes on: at once, in a thread, or item by item."""

    __slots__ = ("_artifacts", "_foreach", "_order", "_run", "_task")

    def __init__(self, run: OpenRun, order: StartTask, task: TaskView) -> None:
        """Store nothing yet; the step of the task has ended."""
        self._run, self._order, self._task = run, order, task
        self._artifacts = task.artifacts
        self._foreach = task.transition.foreach if task.transition is not None else None

    def is_stored_at_once(self) -> bool:
        """Whether `persist` takes less time than starting it in a thread."""
        if self._run.order.durable:
            return False
        values = artifacts_of(self._task.flow)
        if self._foreach is not None and type(values.get(self._foreach)) not in {list, tuple}:
            return False  # a generator, for example
        return codec.are_small(values.values())

    def persist(self) -> Outcome:
        """Store new and changed values, and return the task's result.

        Raises:
            TransitionError: The step has not said where it goes on.
        """
        return persist(self._task, self._foreach)

    async def persist_off_loop(self, off_loop: OffLoop, is_kept: Callable[[], bool]) -> Outcome:
        """Call `persist` in a thread.

        Cancelled: if `is_kept` says that the result is passed on all the same, it is stored to the
        end; else the rest is not written. No thread goes on afterwards.
        """
        artifacts = self._artifacts
        artifacts.are_wanted = True

        def stop() -> None:
            artifacts.are_wanted = is_kept()

        return await off_loop.to_the_end(self.persist, stop)

    def is_streamed(self) -> bool:
        """Whether the step goes on with a foreach over a generator."""
        foreach = self._foreach
        return foreach is not None and self._artifacts.is_streamed(self._task.flow, foreach)

    def stream(self, tell: Callable[[Yielded], None], wait_for_more: Callable[[], int]) -> Outcome:
        """Store and report what the generator of a `def` step yields; return the task's result.

        `wait_for_more` returns how many items may have been yielded in all, once that has grown.
        """
        name, key, process = self._foreach or "", self._order.key, step_forks.present
        with EndingForks():
            source, stream = self._artifacts.begin_stream(self._task.flow, name, key, tell)
            with stream:
                for item in source:
                    end_if_forked(process)  # the generator goes on in its child, too
                    stream.add(item)
                    while stream.is_ahead:
                        stream.allow(wait_for_more())
                return self._artifacts.end_stream(name, stream)

    async def stream_async(
        self,
        tell: Callable[[Yielded], None],
        wait_for_more: Callable[[], Awaitable[int]],
        off_loop: OffLoop,
    ) -> Outcome:
        """The same for an async step, whose generator may be async.

        What takes long is done in threads. Cancelled: nothing more is stored or reported.
        """
        name, key, artifacts = self._foreach or "", self._order.key, self._artifacts
        artifacts.are_wanted = True

        def stop() -> None:
            artifacts.are_wanted = False

        async def in_thread(call: Callable[[], Result]) -> Result:
            def guarded() -> Result:
                with EndingForks():
                    return call()

            return await off_loop.to_the_end(guarded, stop)

        begin = partial(artifacts.begin_stream, self._task.flow, name, key, tell)
        source, stream = await in_thread(begin)
        process = step_forks.present
        with stream:
            if hasattr(type(source), "__aiter__"):
                async for item in source:
                    end_if_forked(process)
                    if codec.are_small([item]) and not self._run.order.durable:
                        stream.add(item)
                    else:
                        await in_thread(partial(stream.add, item))
                    while stream.is_ahead:
                        stream.allow(await wait_for_more())
            else:
                items = await in_thread(partial(iter, source))
                while await in_thread(partial(stream.pull, items)):
                    while stream.is_ahead:
                        stream.allow(await wait_for_more())
            return await in_thread(partial(artifacts.end_stream, name, stream))
