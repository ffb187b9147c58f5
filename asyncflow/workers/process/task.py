"""One task in its worker: what it inherits, and the user's instance.

An `OpenRun` is a run that a worker has open, a `TaskView` one attempt of one of its tasks. A task
reads the refs that it inherits from the journal, at the offset of the previous task. It loads a
value when the step uses it. When the step has ended, a `TaskResult` stores new and changed values.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from asyncflow.errors import TransitionError
from asyncflow.flow.current import Parallel, TaskContext, enter_task, not_awaitable
from asyncflow.flow.task_instance import bind, initialize
from asyncflow.values import Failure
from asyncflow.workers.process.environment import added_variables
from asyncflow.workers.process.run import item_of, stack_of
from asyncflow.workers.process.task_artifacts import TaskArtifacts
from asyncflow.workers.process.task_inputs import arriving_inputs, inputs_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from asyncflow.flow.join_inputs import Inputs
    from asyncflow.flow.node import Node, Transition
    from asyncflow.values import ArtifactRef
    from asyncflow.workers.messages import CardsChanged, StartTask
    from asyncflow.workers.process.arrivals import Arrivals
    from asyncflow.workers.process.async_reads import AsyncReads
    from asyncflow.workers.process.decorated_step import DecoratedStep
    from asyncflow.workers.process.run import Inherited, OpenRun
    from asyncflow.workers.process.task_cards import TaskCards


_new_context: Final = partial(tuple.__new__, TaskContext)  # a third of the time of a call


class TaskView:
    """One task in its worker: what it inherits, and the user's instance.

    It implements the `BoundTask` of `asyncflow.flow.bound_task`.
    """

    def __init__(
        self,
        run: OpenRun,
        order: StartTask,
        reads: AsyncReads | None = None,
        arrivals: Arrivals | None = None,
        tell: Callable[[CardsChanged], None] | None = None,
    ) -> None:
        """Make the instance; an async step has `reads`. `tell` reports what is on its cards."""
        self._run, self._order = run, order
        self._reads, self._arrivals = reads, arrivals
        self._later = reads.check_later if reads is not None else None
        self.constants = run.constants
        """Values of parameters that cannot be changed, so that all tasks can share them."""
        self.step = order.step
        self._pathspec = f"{run.pathspec}/{order.step}/{order.key.task}"
        self.graph = run.graph
        self.node: Node = run.graph.nodes[order.step]
        self.transition: Transition | None = None
        self.choice = ""
        self.num_parallel: int | None = None
        self.failed = False
        """Whether the step has failed."""
        self.is_left = False
        """Whether nothing follows that failure: what is stored is for the client alone."""
        self.artifacts = TaskArtifacts(run, self.node, self._pathspec, self._origin())
        self.index = order.path[-1] if order.path else None
        self.flow = bind(run.flow_class, self)
        """The instance, until `end`."""
        self.cards: TaskCards | None = None
        if "card" in self.node.options:
            from asyncflow.workers.process.task_cards import TaskCards

            self.cards = TaskCards(self.node, order.key, self.flow, run.writer, tell)

    def _origin(self) -> Inherited:
        if self.node.is_join:
            return self._run.base
        at = int.from_bytes(self._order.inputs[:8], "little")
        return self._run.result(at, "the artifacts that {} inherits", self._pathspec)

    def _context(self) -> TaskContext:
        run, key, reads = self._run, self._order.key, self._reads
        started, later = run.started, self._later
        return _new_context(
            (
                run.order.flow,
                run.order.run_id,
                self.step,
                str(key.task),
                key.attempt,
                self.graph,
                run.parameter_names,
                run.parameter if later is None else partial(run.parameter, later=later),
                not_awaitable
                if reads is None
                else partial(reads.load, self.flow, self.artifacts.refs),
                started.tags,
                started.origin_run_id,
                self._parallel() if "parallel" in self.node.options else None,
                run.order.store,
                run.flow_class,
                self.cards,
            )
        )

    def _parallel(self) -> Parallel:
        """Where the task stands in its gang."""
        index = self.index or 0
        nodes = self._origin().fanout or 1
        return Parallel("127.0.0.1", nodes, index, str(self._order.key.task - index))

    # --- TaskState ---

    def names(self) -> Collection[str]:
        """The artifacts that the task has inherited."""
        return self.artifacts.refs.keys()

    def load(self, name: str) -> object:
        """The value of an inherited artifact."""
        return self.artifacts.load(name, self._later)

    def forget(self, name: str) -> None:
        """Remove the artifact from the task."""
        self.artifacts.forget(name)

    def adopt(self, name: str, ref: ArtifactRef) -> None:
        """Take over an artifact of an input, unread."""
        self.artifacts.refs[name] = ref

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
        task = enter_task(self._context(), solo=self._reads is None)
        variables = self._run.order.variables.get(self.step)
        return task if not variables else _entered(task, added_variables(variables))

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

    def end(self) -> None:
        """Let go of the instance, which refers to this: only the collector would end the cycle."""
        del self.flow

    def catches(self, *, may_retry: bool) -> bool:
        """Whether the step's `@catch` handles a failure of this attempt, because no retry follows.

        `may_retry` says whether the step's `@retry` covers the exception.
        """
        if self._order.caught or not self.node.catches or self.node.decides:
            return False
        return self.is_last(may_retry=may_retry)

    def is_last(self, *, may_retry: bool) -> bool:
        """Whether no retry follows a failure of this attempt; `may_retry` is as for `catches`."""
        return not (may_retry and self.node.is_retried(self._order.key.attempt))

    def leave(self) -> None:
        """Store what is set by now, though the step has failed for good and leads nowhere."""
        self.transition, self.num_parallel = None, None
        self.failed = self.is_left = True

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
        self.failed = True

    def _arguments(self) -> tuple[Inputs, ...]:
        if not self.node.is_join:
            return ()
        given = self._run, self._order, self._pathspec, self._later
        return (
            inputs_of(*given)
            if self._arrivals is None
            else arriving_inputs(*given, self._arrivals),
        )


@contextmanager
def _entered(
    task: AbstractContextManager[None], variables: AbstractContextManager[None]
) -> Iterator[None]:
    with task, variables:
        yield
