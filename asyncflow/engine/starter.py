"""The part of an engine through which runs are started, with options for them."""

# ruff: noqa: SLF001 - both classes are one concept

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from asyncflow.engine.arguments import check_flow, check_origin, check_store, check_tags
from asyncflow.engine.found_runs import interrupted_runs, run_of_key
from asyncflow.engine.new_run import FoundByKey, NewRun

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from asyncflow.client import Run
    from asyncflow.engine.run_handle import RunHandle
    from asyncflow.flow.code_files import CodeFiles
    from asyncflow.flow.spec import FlowSpec
    from asyncflow.store.interface import RunStore, StoredRun
    from asyncflow.values import RunOptions


Found = TypeVar("Found")


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
        options = self._options
        if options.key and not options.again:
            find = partial(run_of_key, flow=flow.__name__, key=options.key)
            found = await self._look_up(find)
            if found is not None:
                return self._handle_of(found)

        def prepare(
            store: RunStore, code: CodeFiles, environ: Mapping[str, str], *, durable: bool
        ) -> NewRun:
            new = NewRun(store, flow, stored, code, environ, durable=durable)
            new.give(parameters)
            return new

        try:
            return await self._begin(prepare, options)
        except FoundByKey as found_now:
            return self._handle_of(found_now.run)

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

        return await self._begin(prepare, self._options)

    async def resume_interrupted(
        self, flow: type[FlowSpec], /, *, tags: Iterable[str] = ()
    ) -> list[RunHandle]:
        """Resume each run of the flow that was interrupted and that nobody has resumed.

        For the start of a service: whatever its last process left unfinished goes on, whether that
        process was killed or has closed its engine in order. A run that somebody has cancelled is
        not resumed. Of any number of processes that call it at once, one takes up each run. Returns
        the handles of the runs that this call has started, those of the oldest runs first, once all
        are in their journals.

        Raises:
            EngineClosedError: The engine is not open.
            FlowError: It is not a flow class.
            ParameterError: A tag is not text.
            ResumeError: The flow no longer has the steps that finished in one of them.
            StoreError: The store cannot be read or written.
        """
        check_flow(flow)
        stored = check_tags(tags)
        handles = []
        for run_id in await self._look_up(partial(interrupted_runs, flow=flow.__name__)):

            def prepare(
                store: RunStore,
                code: CodeFiles,
                environ: Mapping[str, str],
                *,
                durable: bool,
                run_id: str = run_id,
            ) -> NewRun:
                new = NewRun(store, flow, stored, code, environ, durable=durable)
                new.take_over_from(run_id, None, once=True)
                return new

            with suppress(FoundByKey):  # another process has taken it up meanwhile
                handles.append(await self._begin(prepare, self._options))
        return handles

    def options(
        self,
        *,
        priority: int | None = None,
        max_running_tasks: int | None = None,
        branch: str | None = None,
        production: bool | None = None,
        key: str | None = None,
        again: bool | None = None,
    ) -> Starter:
        """Return a starter of runs with these options; an option that is left out stays as it is.

        Args:
            priority: Tasks of runs with a higher priority get workers first; 0 by default.
            max_running_tasks: How many tasks of a run workers may have at a time; 0 for no limit.
            branch: The branch of the flow's project that runs are in.
            production: Whether runs are of production in the flow's project.
            key: Names the run, as `order-42`. There is one run for each key of a flow: whoever
                starts it a second time, in whatever process, is given a handle of the run that is
                there, whether it goes on or has ended. The values of parameters are then not
                looked at. A run that resumes the run of a key takes over the key.
            again: With a key, start another run, which takes over the key.

        Raises:
            SettingsError: A value is out of range.
        """
        given: dict[str, Any] = {
            "priority": priority,
            "max_running_tasks": max_running_tasks,
            "branch": branch,
            "production": production,
            "key": key,
            "again": again,
        }
        changed = {name: value for name, value in given.items() if value is not None}
        return _OptionedEngine(self, replace(self._options, **changed))

    async def _begin(self, prepare: Prepare, options: RunOptions) -> RunHandle:
        """Start a run.

        Raises:
            FoundByKey: It is not started, because there is one already.
        """
        raise NotImplementedError

    async def _look_up(self, find: Callable[[RunStore], Found]) -> Found:
        """Look for something in the store, in a thread."""
        raise NotImplementedError

    def _handle_of(self, run: StoredRun) -> RunHandle:
        """A handle of a run that was found."""
        raise NotImplementedError


class _OptionedEngine(Starter):
    """An engine together with options for the runs that it starts."""

    def __init__(self, starter: Starter, options: RunOptions) -> None:
        self._starter, self._options = starter, options

    async def _begin(self, prepare: Prepare, options: RunOptions) -> RunHandle:
        return await self._starter._begin(prepare, options)

    async def _look_up(self, find: Callable[[RunStore], Found]) -> Found:
        return await self._starter._look_up(find)

    def _handle_of(self, run: StoredRun) -> RunHandle:
        return self._starter._handle_of(run)

    def __repr__(self) -> str:
        return f"<{self._options} of {self._starter!r}>"
