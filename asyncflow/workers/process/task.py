"""One task in its worker: what it inherits, the user's instance, and its result.

A `RunView` is what a worker knows of a run, a `TaskView` one attempt of one of its tasks. A task
reads the refs that it inherits from the journal, at the offset of the previous task. It loads a
value when the step uses it. When the step has ended, new and changed values are stored.
"""

from __future__ import annotations

import os
import sys
from array import array
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar
from zlib import crc32

from asyncflow import codec
from asyncflow.errors import FlowError, JournalError, TransitionError
from asyncflow.events.records import MAX_TASK
from asyncflow.flow.bound_task import artifacts_of
from asyncflow.flow.current import Parallel, TaskContext, enter_task, not_awaitable
from asyncflow.flow.join_inputs import ArrivingInputs, Inputs, InputView, lock_of, refs_of
from asyncflow.flow.node import Fanout, Transition
from asyncflow.flow.task_instance import bind, initialize
from asyncflow.values import Failure
from asyncflow.workers.process.join_input import JoinInput
from asyncflow.workers.process.run import item_of, stack_of
from asyncflow.workers.process.step_forks import EndingForks
from asyncflow.workers.process.task_artifacts import TaskArtifacts

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
    from concurrent.futures import Future
    from contextlib import AbstractContextManager

    from asyncflow.flow.node import Node
    from asyncflow.flow.spec import FlowSpec
    from asyncflow.values import ArtifactRef, Outcome
    from asyncflow.workers.messages import StartTask, Yielded
    from asyncflow.workers.process.arrivals import Arrivals
    from asyncflow.workers.process.artifact_threads import OffLoop
    from asyncflow.workers.process.decorated_step import DecoratedStep
    from asyncflow.workers.process.run import Inherited, RunView

Result = TypeVar("Result")

_LOADED_AT_ONCE_BYTES: Final = 64 << 10  # a thread costs as much as unpickling that many bytes


class TaskView:
    """One task in its worker: what it inherits, the user's instance, and its result.

    It implements the `BoundTask` of `asyncflow.flow.bound_task`.
    """

    def __init__(
        self,
        run: RunView,
        order: StartTask,
        off_loop: OffLoop | None = None,
        arrivals: Arrivals | None = None,
    ) -> None:
        """Make the instance; an async step has an `off_loop`."""
        self._run, self._order = run, order
        self._off_loop, self._arrivals = off_loop, arrivals
        self._later = self._check_later if off_loop else None
        self._checks: list[Future[None]] = []
        self._loads: set[Future[Any]] = set()  # loads that go on in threads, awaited or not
        self._damage: BaseException | None = None
        self._stopped = False
        self.step = order.step
        self._pathspec = f"{run.pathspec}/{order.step}/{order.key.task}"
        self.graph = run.graph
        self.node: Node = run.graph[order.step]
        self.transition: Transition | None = None
        self.choice = ""
        self.num_parallel: int | None = None
        self._failed = False  # and its step's `@catch` passes it on
        self._artifacts = TaskArtifacts(run, self.node, self._pathspec, self._origin(), self._go_on)
        self.index = order.path[-1] if order.path else None
        self.flow = bind(run.flow_class, self)

    def _origin(self) -> Inherited:
        if self.node.is_join:
            return self._run.base
        at = int.from_bytes(self._order.inputs[:8], "little")
        return self._run.result(at, f"the artifacts that {self._pathspec} inherits")

    def _context(self) -> TaskContext:
        started = self._run.started
        key = self._order.key
        return TaskContext(  # by position, which takes a third of the time
            self._run.order.flow,
            self._run.order.run_id,
            self.step,
            str(key.task),
            key.attempt,
            self.graph,
            tuple(started.parameters),
            lambda name: self._run.parameter(name, self._later),
            self._load_off_loop if self._off_loop else not_awaitable,
            started.tags,
            started.origin_run_id,
            self._parallel() if "parallel" in self.node.options else None,
            self._run.order.store,
            self._run.flow_class,
        )

    def _parallel(self) -> Parallel:
        """Where the task stands in its gang."""
        index = self.index or 0
        nodes = self._origin().fanout or 1
        return Parallel("127.0.0.1", nodes, index, str(self._order.key.task - index))

    # --- TaskState ---

    def names(self) -> Collection[str]:
        """The artifacts that the task has inherited."""
        return self._artifacts.refs.keys()

    def load(self, name: str) -> object:
        """The value of an inherited artifact."""
        return self._artifacts.load(name, self._later)

    def forget(self, name: str) -> None:
        """Remove the artifact from the task."""
        self._artifacts.forget(name)

    def adopt(self, name: str, ref: ArtifactRef) -> None:
        """Take over an artifact of an input, unread."""
        self._artifacts.refs[name] = ref

    def input(self) -> object:
        """The task's item of the innermost foreach."""
        level = len(self._order.path) - 1
        order = self._order
        return item_of(self._run, self._pathspec, order.stack, order.path, level, self._later)

    def stack(self) -> list[tuple[int, int | None, object]]:
        """Index, count and item of every foreach around this task, outermost first."""
        order = self._order
        return stack_of(self._run, self._pathspec, order.stack, order.path, self._later)

    # --- running ---

    def entered(self) -> AbstractContextManager[None]:
        """Within the block, `current` and the variables of `@environment` are this task's."""
        task = enter_task(self._context(), solo=self._off_loop is None)
        variables = self._run.order.variables.get(self.step)
        return task if not variables else _entered(task, Environment(variables))

    def call(self, shared: Mapping[str, Any]) -> None:
        """Run the user's method, with the shared resources that it asks for."""
        initialize(self.flow)
        self._clear_caught()
        method = getattr(self.flow, self.step)
        if "own" in self.node.options:
            self._decorated(method, shared).run()
        else:
            method(*self._arguments(), **shared)

    async def call_async(self, shared: Mapping[str, Any]) -> None:
        """The same for an async step."""
        initialize(self.flow)
        self._clear_caught()
        method = getattr(self.flow, self.step)
        if "own" in self.node.options:
            await self._decorated(method, shared).run_async()
        else:
            await method(*self._arguments(), **shared)
        if self._arrivals is not None:
            await self._arrivals.wait_for_all()  # a join never ends before the tasks that it joins

    def _decorated(self, method: Callable[..., Any], shared: Mapping[str, Any]) -> DecoratedStep:
        from asyncflow.workers.process.decorated_step import DecoratedStep, own_decorators_of

        decorators = own_decorators_of(self._run.flow_class, self.node)
        inputs = self._arguments()
        return DecoratedStep(self, decorators, inputs, partial(method, *inputs, **shared))

    def _clear_caught(self) -> None:
        """Set the artifact of `@catch` to None: no failure was caught."""
        options = self.node.options.get("catch")
        if isinstance(options, dict) and options["var"]:
            setattr(self.flow, options["var"], None)

    def catches(self, *, may_retry: bool) -> bool:
        """Whether the step's `@catch` handles a failure of this attempt, because no retry follows.

        `may_retry` says whether the step's `@retry` covers the exception.
        """
        if self._order.caught or not self.node.catches or self.node.decides:
            return False
        return not (may_retry and self.node.is_retried(self._order.key.attempt))

    def hand_on(self, failed: Sequence[Any]) -> None:
        """Store the result of a step whose failure is caught: what is set by now, and the failure.

        `failed` is attempt, type, message and traceback.
        """
        options = self.node.options["catch"]
        failure = Failure(self.step, str(self._order.key.task), *failed)
        if options["print_exception"]:
            print(failure.traceback or f"{failure.type}: {failure.message}", file=sys.stderr)  # noqa: T201 - into the task's log
        if options["var"]:
            setattr(self.flow, options["var"], failure)
        if self.node.decides:
            error = f"@catch cannot stand in for {self.step!r}: the next step is unknown"
            raise TransitionError(error, step=self.step, file=self.node.file, line=self.node.line)
        self.transition = self.node.transition if self.node.next else None
        self._failed = True

    def _arguments(self) -> tuple[Inputs, ...]:
        return (self._inputs(),) if self.node.is_join else ()

    def _inputs(self) -> Inputs:
        if self._arrivals is not None:
            return self._arriving_inputs(self._arrivals)
        offsets = self._input_offsets()
        run = self._run
        names = None
        if self.graph[str(self.node.joins)].fanout is Fanout.BRANCH:
            names = [run.result(offset, f"an input of {self._pathspec}").step for offset in offsets]
        return Inputs(names, len(offsets), lambda index: self._input_view(offsets, index))

    def _arriving_inputs(self, arrivals: Arrivals) -> Inputs:
        of = f"an input of {self._pathspec}"
        run, order = self._run, self._order

        def view(number: int) -> InputView:
            offset, item_at = arrivals.place(number)
            placed = order._replace(stack=[*order.stack[:-1], item_at])
            return InputView(JoinInput(run, placed, run.result(offset, of), self._later))

        return ArrivingInputs(arrivals, view)

    def _input_view(self, offsets: Sequence[int], index: int) -> InputView:
        of = f"the artifacts of input {index} of {self._pathspec}"
        inherited = self._run.result(offsets[index], of)
        return InputView(JoinInput(self._run, self._order, inherited, self._later))

    def _input_offsets(self) -> array[int]:
        data = self._order.inputs
        if self._order.inputs_at:
            file, checksum = self._order.inputs_at
            with self._run.reading(f"which tasks lead to {self._pathspec}"):
                stored = self._run.stored
                data = stored.read_file(file, most=MAX_TASK * 8)  # an offset for each task
                if crc32(data) != checksum:
                    message = f"{stored.place}/{file} is damaged: it is not what was written"
                    raise JournalError(message)
        offsets = array("Q")
        offsets.frombytes(data)
        if sys.byteorder == "big":
            offsets.byteswap()
        return offsets

    # --- off the event loop ---

    def _check_later(self, digest: bytes, check: Callable[[], None]) -> None:
        going_on = self._off_loop.check(digest, check) if self._off_loop else None
        if going_on is not None:
            self._checks.append(going_on)

    async def checked(self) -> None:
        """Return once everything that an async step has read is known to be undamaged.

        Raises:
            ArtifactCorruptError: Something is not what was stored.
        """
        if self._checks and self._off_loop:
            try:
                await self._off_loop.checked(self._checks)
            except BaseException as error:  # damage, or a cancellation
                self._damage = error
                raise

    async def damage(self) -> BaseException | None:
        """The error that `checked` raises or has raised: no result of the task can be trusted."""
        with suppress(BaseException):
            await self.checked()
        return self._damage

    async def _load_off_loop(self, name: str, of: InputView | None) -> Any:
        """See `current.load`."""
        owner: FlowSpec | InputView = self.flow if of is None else of
        if not isinstance(of, InputView | None):
            raise FlowError(f"current.load takes one of the inputs of a join, not {of!r}")
        refs = self._artifacts.refs if of is None else refs_of(of)
        ref = refs.get(name)
        takes_long = ref.size >= _LOADED_AT_ONCE_BYTES if ref else name == "input"
        if takes_long and name not in vars(owner) and self._off_loop:

            def read() -> None:
                with EndingForks():
                    getattr(owner, name)

            import asyncio

            # Others that need the value wait here, and not in one of the few threads.
            async with lock_of(vars(owner), name, asyncio.Lock):
                if name not in vars(owner):
                    await self._off_loop.run(read, self._loads)
        return getattr(owner, name)

    async def loads_ended(self) -> None:
        """Return once none of the task's threads reads any more, even if cancelled meanwhile."""
        if self._loads:
            from asyncflow.workers.process.artifact_threads import ended

            await ended(self._loads)

    async def store(self, is_kept: Callable[[], bool]) -> Outcome:
        """Call `persist` in a thread.

        Cancelled: if `is_kept` says that the result is passed on all the same, it is stored to the
        end; else the rest is not written. No thread goes on afterwards.
        """
        if self._off_loop is None:
            return self.persist()
        self._stopped = False

        def stop() -> None:
            self._stopped = not is_kept()

        return await self._off_loop.to_the_end(self.persist, stop)

    def is_stored_at_once(self) -> bool:
        """Whether `persist` takes less time than starting it in a thread."""
        if self._run.order.durable:
            return False
        values = artifacts_of(self.flow)
        foreach = self.transition.foreach if self.transition else None
        if foreach is not None and type(values.get(foreach)) not in {list, tuple}:
            return False  # a generator, for example
        return codec.are_small(values.values())

    def is_streamed(self) -> bool:
        """Whether the step goes on with a foreach over a generator."""
        foreach = self.transition.foreach if self.transition is not None else None
        return foreach is not None and self._artifacts.is_streamed(self.flow, foreach)

    def stream(self, tell: Callable[[Yielded], None], wait_for_more: Callable[[], int]) -> Outcome:
        """Store and report what the generator of a `def` step yields; return the task's result.

        `wait_for_more` returns how many items may have been yielded in all, once that has grown.
        """
        name = str(self.transition.foreach) if self.transition else ""
        with EndingForks():
            source, stream = self._artifacts.begin_stream(self.flow, name, self._order.key, tell)
            with stream:
                for item in source:
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
        name = str(self.transition.foreach) if self.transition else ""
        self._stopped = False

        async def in_thread(call: Callable[[], Result]) -> Result:
            def guarded() -> Result:
                with EndingForks():
                    return call()

            return await off_loop.to_the_end(guarded, self._stop)

        begin = partial(self._artifacts.begin_stream, self.flow, name, self._order.key, tell)
        source, stream = await in_thread(begin)
        with stream:
            if hasattr(type(source), "__aiter__"):
                async for item in source:
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
            return await in_thread(partial(self._artifacts.end_stream, name, stream))

    def _stop(self) -> None:
        self._stopped = True

    def persist(self) -> Outcome:
        """Store new and changed values, and return the task's result."""
        transition = self._checked_transition()
        foreach = transition.foreach if transition is not None else None
        with EndingForks():  # pickling a value may run its class's code
            return self._artifacts.store(self, self.flow, foreach, failed=self._failed)

    def _checked_transition(self) -> Transition | None:
        if self.node.next and self.transition is None:
            message = f"the step {self.step!r} ended without self.next(...)"
            raise TransitionError(message, step=self.step, file=self.node.file, line=self.node.line)
        return self.transition

    def _go_on(self) -> None:
        if self._stopped:
            raise _StoppedError


class _StoppedError(Exception):
    """The task's result is no longer wanted."""


@contextmanager
def _entered(task: AbstractContextManager[None], environment: Environment) -> Iterator[None]:
    with task, environment:
        yield


class Environment:
    """Sets environment variables within the block, and restores the former ones after it."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables
        self._before: dict[str, str | None] = {}

    def __enter__(self) -> None:
        self._before = {name: os.environ.get(name) for name in self._variables}
        os.environ.update(self._variables)

    def __exit__(self, *_: object) -> None:
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
