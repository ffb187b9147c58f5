"""One task alone, run in this process on the inputs of a task that has run before.

The process need not be a worker: the step has its terminal, its modules and its debugger. What the
step makes is encoded, as that shows whether it could be stored, and stays in memory.
"""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from asyncflow.flow.bound_task import artifacts_of
from asyncflow.store.unstored import Unstored
from asyncflow.workers.process.artifact_threads import OffLoop
from asyncflow.workers.process.async_reads import AsyncReads
from asyncflow.workers.process.run import OpenRun
from asyncflow.workers.process.shared_resources import SharedResources
from asyncflow.workers.process.step_forks import EndingForks
from asyncflow.workers.process.task import TaskView
from asyncflow.workers.process.task_result import TaskResult

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from asyncflow.flow.graph import Graph
    from asyncflow.flow.spec import FlowSpec
    from asyncflow.values import Outcome
    from asyncflow.workers.messages import Opening, StartTask


class _RunHere(OpenRun):
    """A run whose flow is the one that this process has loaded; its environment is this one."""

    def __init__(self, order: Opening, flow: type[FlowSpec], graph: Graph) -> None:
        super().__init__(order, os.getpid())
        self._flow, self._graph_here = flow, graph

    def read(self) -> None:
        super().read()
        self.graph = self._graph_here

    def _sink(self) -> Unstored:
        return Unstored()

    def _enter_environment(self) -> None:
        """Do nothing: it is this process's own."""

    def _load(self, source: Mapping[str, Any]) -> type[FlowSpec]:  # noqa: ARG002 - the signature is the base class's
        return self._flow


async def _no_limit() -> int:
    return sys.maxsize


class SingleTask:
    """A task that is run again, once, whatever its step's `@retry`, `@catch` and `@timeout` say."""

    def __init__(
        self, opening: Opening, order: StartTask, flow: type[FlowSpec], graph: Graph
    ) -> None:
        """Prepare it; `flow` and `graph` are those of now, and `opening` names the run."""
        self.graph = graph
        """The graph that the step is in."""
        self._run, self._order = _RunHere(opening, flow, graph), order
        self._view: TaskView | None = None

    def open(self) -> None:
        """Open the files of the run.

        Raises:
            StoreError: They cannot be read.
        """
        self._run.open()

    def run(
        self,
        artifacts: Mapping[str, Any],
        complain: Callable[[str, str, str], object],
        *,
        skip_decorators: bool = False,
    ) -> Outcome:
        """Run the step, and see whether its artifacts can be stored.

        Args:
            artifacts: Values that the step finds instead of those that it inherits.
            complain: Called with flow, name and error if a shared resource cannot be closed.
            skip_decorators: Whether decorators of the user's own are left out.

        Raises:
            BaseException: Whatever the step raises.
        """
        run, holder = self._run, SharedResources(complain)
        try:
            self.open()
            given = artifacts, holder, skip_decorators
            if run.graph[self._order.step].is_async:
                return asyncio.run(self._run_async(*given))
            view = self._prepare(artifacts, None, skip_decorators=skip_decorators)
            with view.entered(), EndingForks():
                view.call(holder.open(run.flow_class, view.node.shared))
            result = TaskResult(run, self._order, view)
            if result.is_streamed():  # nobody waits for the items
                return result.stream(lambda _: None, lambda: sys.maxsize)
            return result.persist()
        finally:
            holder.close()
            run.close()

    async def _run_async(
        self,
        artifacts: Mapping[str, Any],
        holder: SharedResources,
        skip_decorators: bool,  # noqa: FBT001 - internal
    ) -> Outcome:
        run = self._run
        off_loop = OffLoop()
        reads = AsyncReads(off_loop)
        view = self._prepare(artifacts, reads, skip_decorators=skip_decorators)
        try:
            with view.entered(), EndingForks():
                shared = await holder.open_async(run.flow_class, view.node.shared)
                await view.call_async(shared)
                await reads.loads_ended()
            result = TaskResult(run, self._order, view)
            if result.is_streamed():
                outcome = await result.stream_async(lambda _: None, _no_limit, off_loop)
            else:
                outcome = result.persist()
            await reads.checked()
            return outcome
        finally:
            await holder.close_async()

    def _prepare(
        self, artifacts: Mapping[str, Any], reads: AsyncReads | None, *, skip_decorators: bool
    ) -> TaskView:
        view = self._view = TaskView(self._run, self._order, reads)
        if skip_decorators:
            options = {name: each for name, each in view.node.options.items() if name != "own"}
            view.node = replace(view.node, options=options)
        vars(view.flow).update(artifacts)
        return view

    @property
    def made(self) -> dict[str, Any]:
        """What the step has set or read, by name."""
        return artifacts_of(self._view.flow) if self._view is not None else {}

    @property
    def artifacts(self) -> dict[str, Any]:
        """Everything that the task would pass on, by name; read now where the step has not."""
        if self._view is None:
            return {}
        names = {*self._view.names(), *self.made}
        return {name: getattr(self._view.flow, name) for name in sorted(names)}

    @property
    def constants(self) -> dict[str, Any]:
        """The parameters and constants of the run."""
        base = self._run.base
        return {name: base.load(name) for name in sorted(base.refs)}

    @property
    def next_steps(self) -> tuple[str, ...]:
        """Where the step goes on to."""
        view = self._view
        if view is None or view.transition is None:
            return ()
        return (view.choice,) if view.choice else view.transition.steps

    def __repr__(self) -> str:
        return f"<SingleTask {self._run.pathspec}/{self._order.step}/{self._order.key.task}>"
