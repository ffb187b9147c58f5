"""The part of an engine through which runs are started, with options for them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from asyncflow.engine.arguments import check_flow, check_origin, check_store, check_tags
from asyncflow.engine.new_run import NewRun

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from asyncflow.client import Run
    from asyncflow.engine.run_handle import RunHandle
    from asyncflow.flow.code_files import CodeFiles
    from asyncflow.flow.spec import FlowSpec
    from asyncflow.store.interface import RunStore
    from asyncflow.values import RunOptions


class Prepare(Protocol):
    """Creates a run's folder and first record; called in a thread."""

    def __call__(
        self, store: RunStore, code: CodeFiles, environ: Mapping[str, str], *, durable: bool
    ) -> NewRun:
        """Give the new run its values."""
        ...


class Starter:
    """Starts runs: an engine, or an engine together with options for its runs.

    Keyword arguments, apart from `tags`, are parameters of the flow; other options of a run are set
    with `options`.
    """

    _options: RunOptions

    async def run(
        self, flow: type[FlowSpec], /, *, tags: Iterable[str] = (), **parameters: Any
    ) -> Run:
        """Run a flow to its end.

        Raises:
            FlowError: It is not a flow class.
            GraphError: The flow's steps form no graph that can be run.
            ParameterError: A parameter has a value that it cannot take, or a tag is not text.
            RunFailedError: A task failed; the error says which one, and why.
            RunCancelledError: Somebody else cancelled the run.

        Cancelled: the run is cancelled too; its journal says so before the cancellation goes on.
        """
        handle = await self.start(flow, tags=tags, **parameters)
        return await handle

    async def start(
        self, flow: type[FlowSpec], /, *, tags: Iterable[str] = (), **parameters: Any
    ) -> RunHandle:
        """Start a flow; return once the run is in its journal.

        Raises:
            EngineClosedError: The engine is not open.
            AsyncflowError: The engine was entered on another event loop.
            FlowError: It is not a flow class.
            GraphError: The flow's steps form no graph that can be run.
            ParameterError: A parameter has a value that it cannot take, or a tag is not text.
            StoreError: The store cannot be written.

        Cancelled: no run was started, or it is cancelled like any other.
        """
        check_flow(flow)
        stored = check_tags(tags)

        def prepare(
            store: RunStore, code: CodeFiles, environ: Mapping[str, str], *, durable: bool
        ) -> NewRun:
            new = NewRun(store, flow, stored, code, environ, durable=durable)
            new.give(parameters)
            return new

        return await self._start(prepare, self._options)

    async def resume(
        self,
        flow: type[FlowSpec],
        /,
        *,
        origin: str | int | Run | RunHandle | None = None,
        step: str | None = None,
        tags: Iterable[str] = (),
    ) -> Run:
        """Resume an earlier run to its end: take over its finished tasks, run the others.

        Finished tasks of `origin` are taken over as refs; their values are not copied. With `step`,
        that step and all steps after it run again. The parameters are those of the origin.

        Args:
            flow: The flow class, as it is now.
            origin: A run id, a pathspec, a `Run` or a handle; the flow's latest run if left out.
            step: The first step to run again.
            tags: Those of the new run.

        Raises:
            FlowError: It is not a flow class.
            ParameterError: A tag is not text.
            ResumeError: The origin is not a run of this flow in this store, or is still running, or
                the flow no longer has the steps that finished.
            RunFailedError: A task failed; the error says which one, and why.
            RunCancelledError: Somebody else cancelled the run.

        Cancelled: the run is cancelled too; its journal says so before the cancellation goes on.
        """
        return await (await self.start_resumed(flow, origin=origin, step=step, tags=tags))

    async def start_resumed(
        self,
        flow: type[FlowSpec],
        /,
        *,
        origin: str | int | Run | RunHandle | None = None,
        step: str | None = None,
        tags: Iterable[str] = (),
    ) -> RunHandle:
        """The same as `resume`, but return once the new run is in its journal.

        Raises:
            EngineClosedError: The engine is not open.
            AsyncflowError: The engine was entered on another event loop.
            FlowError: It is not a flow class.
            ParameterError: A tag is not text.
            ResumeError: The origin is not a run of this flow in this store, or is still running, or
                the flow no longer has the steps that finished.
        """
        check_flow(flow)
        stored = check_tags(tags)
        run_id = check_origin(flow, origin)

        def prepare(
            store: RunStore, code: CodeFiles, environ: Mapping[str, str], *, durable: bool
        ) -> NewRun:
            check_store(store, origin)
            new = NewRun(store, flow, stored, code, environ, durable=durable)
            new.take_over_from(run_id, step)
            return new

        return await self._start(prepare, self._options)

    def options(
        self,
        *,
        priority: int | None = None,
        max_running_tasks: int | None = None,
        branch: str | None = None,
        production: bool | None = None,
    ) -> Starter:
        """Return a starter of runs with these options; an option that is left out stays as it is.

        Args:
            priority: Tasks of runs with a higher priority get workers first; 0 by default.
            max_running_tasks: How many tasks of a run workers may have at a time; 0 for no limit.
            branch: The branch of the flow's project that runs are in.
            production: Whether runs are of production in the flow's project.

        Raises:
            SettingsError: A value is out of range.
        """
        given: dict[str, Any] = {
            "priority": priority,
            "max_running_tasks": max_running_tasks,
            "branch": branch,
            "production": production,
        }
        changed = {name: value for name, value in given.items() if value is not None}
        return _OptionedEngine(self, replace(self._options, **changed))

    async def _start(self, prepare: Prepare, options: RunOptions) -> RunHandle:
        raise NotImplementedError


class _OptionedEngine(Starter):
    """An engine together with options for the runs that it starts."""

    def __init__(self, starter: Starter, options: RunOptions) -> None:
        self._starter, self._options = starter, options

    async def _start(self, prepare: Prepare, options: RunOptions) -> RunHandle:
        return await self._starter._start(prepare, options)  # noqa: SLF001 - both classes are one concept

    def __repr__(self) -> str:
        return f"<{self._options} of {self._starter!r}>"
