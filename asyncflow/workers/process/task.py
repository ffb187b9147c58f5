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
from asyncflow.flow.bound_task import STATE
from asyncflow.flow.current import EnteredTask, Parallel, TaskContext
from asyncflow.flow.task_instance import initialize
from asyncflow.values import Failure
from asyncflow.workers.process.environment import added_variables
from asyncflow.workers.process.run import item_of, stack_of
from asyncflow.workers.process.task_artifacts import TaskArtifacts
from asyncflow.workers.process.task_inputs import arriving_inputs, inputs_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from asyncflow.flow.join_inputs import Inputs
    from asyncflow.flow.node import Transition
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

    __slots__ = (
        "_arrivals",
        "_later",
        "_open",
        "_order",
        "_reads",
        "_run",
        "artifacts",
        "cards",
        "choice",
        "constants",
        "failed",
        "flow",
        "graph",
        "index",
        "is_left",
        "node",
        "num_parallel",
        "step",
        "transition",
    )

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
        opened = self._open = run.step(order.step)
        self.graph = run.graph
        node = self.node = opened.node
        self.transition: Transition | None = None
        self.choice = ""
        self.num_parallel: int | None = None
        self.failed = False
        """Whether the step has failed."""
        self.is_left = False
        """Whether nothing follows that failure: what is stored is for the client alone."""
        self.artifacts: TaskArtifacts = TaskArtifacts(run, opened, order.key.task, self._origin())
        self.index = order.path[-1] if order.path else None
        flow = self.flow = object.__new__(opened.instance_class)
        """The instance. It refers to this."""
        flow.__dict__[STATE] = self
        self.cards: TaskCards | None = None
        if node.options and "card" in node.options:
            from asyncflow.workers.process.task_cards import TaskCards

            self.cards = TaskCards(node, order.key, flow, run.writer, tell)

    def __str__(self) -> str:
        return f"{self._open.place}{self._order.key.task}"

    def _origin(self) -> Inherited:
        if self.node.is_join:
            return self._run.base
        at = int.from_bytes(self._order.inputs[:8], "little")
        return self._run.result(at, "the artifacts that {} inherits", self)

    def _context(self) -> TaskContext:
        opened, (_, task, attempt) = self._open, self._order.key
        usual = (*opened.context_head, str(task), attempt, *opened.context_tail)
        context: TaskContext = _new_context(usual)
        reads = self._reads
        if reads is not None:
            later = partial(self._run.parameter, later=self._later)
            load = partial(reads.load, self.flow, self.artifacts.refs)
            context = context._replace(load_parameter=later, load=load)
        if self.node.options:
            parallel = self._parallel() if self.node.is_gang else None
            context = context._replace(parallel=parallel, cards=self.cards)
        return context

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
        return item_of(self._run, self, order.stack, order.path, level, self._later)

    def stack(self) -> list[tuple[int, int | None, object]]:
        """Index, count and item of every foreach around this task, outermost first."""
        order = self._order
        return stack_of(self._run, self, order.stack, order.path, self._later)

    # --- running ---

    def entered(self) -> AbstractContextManager[None]:
        """Within the block, `current` and the variables of `@environment` are this task's."""
        task = EnteredTask(self._context(), solo=self._reads is None)
        variables = self._open.variables
        return task if not variables else _entered(task, added_variables(variables))

    def call(self, shared: Mapping[str, Any]) -> None:
        """Run the user's method, with the shared resources that it asks for."""
        flow, options = self.flow, self.node.options
        if self._open.has_own_init:
            initialize(flow)
        if options:
            self._clear_caught()
        method = getattr(flow, self.step)
        if "own" in options:
            self._decorated(method, shared).run()
        elif self.node.is_join:
            method(*self._arguments(), **shared)
        else:
            method(**shared)

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
        given = self._run, self._order, str(self), self._later
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
