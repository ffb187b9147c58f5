"""Runs a whole flow for a test: in the test's own process, or on workers."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from asyncflow._support.settings import Settings
from asyncflow.engine.arguments import check_flow
from asyncflow.engine.engine import Engine
from asyncflow.errors import AsyncflowError, NotFoundError, RunFailedError
from asyncflow.events.types import TaskSucceeded
from asyncflow.flow.graph_reader import prepare, read_graph
from asyncflow.flow.log_records import tasks_named_in_records
from asyncflow.testing.in_process import Host, tasks_have_output
from asyncflow.testing.live_mocks import mocks_by_reference
from asyncflow.testing.scratch_store import scratch_store
from asyncflow.workers.process.environment import EnvironmentSnapshot
from asyncflow.workers.process.thread_context import thread_propagation

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from asyncflow.client import Run
    from asyncflow.engine.run_handle import RunHandle
    from asyncflow.flow.spec import FlowSpec
    from asyncflow.testing.retry_clock import RetryClock


@dataclass(frozen=True, slots=True, kw_only=True)
class RunAs:
    """How a flow is run for a test."""

    in_process: bool = True
    """Whether its tasks run in this process; else on workers."""
    store: str | Path | None = None
    """The store; one in a temporary folder, which this process shares, if left out."""
    tags: Iterable[str] = ()
    resume: Run | None = None
    """The run to resume."""
    clock: RetryClock | None = None
    """Skips the waits before retries."""
    crash_after: str = ""
    """Break off after the first task of this step, as if the program had been killed."""


def run_flow(
    flow: type[FlowSpec],
    /,
    *,
    in_process: bool = True,
    store: str | Path | None = None,
    tags: Iterable[str] = (),
    resume: Run | None = None,
    **parameters: Any,
) -> Run:
    """Run a flow to its end, and return the run.

    In this process, `def` steps and `async def` steps run in the thread that calls, one after the
    other, so that the test's mocks, debugger and captured output work in them. What they print is
    also in their logs. `@timeout` cannot stop a `def` step there, and `@isolate` does nothing.

    Args:
        flow: The flow class.
        in_process: Whether to run it in this process; else on worker processes, as a program would.
        store: The store; one in a temporary folder if left out.
        tags: Those of the run.
        resume: The run to resume, whose parameters it has.
        parameters: Values of the flow's parameters.

    Raises:
        RunFailedError: A task failed. In this process, what the step raised is the cause.
        AsyncflowError: As from `Engine.run`.
    """
    how = RunAs(in_process=in_process, store=store, tags=tags, resume=resume)
    return carry_out(flow, how, parameters)


def carry_out(flow: type[FlowSpec], how: RunAs, parameters: dict[str, Any]) -> Run:
    """Run a flow as it is said."""
    check_flow(flow)
    if how.crash_after and how.crash_after not in read_graph(prepare(flow)).nodes:
        message = f"{flow.__name__} has no step {how.crash_after!r} to crash after"
        raise NotFoundError(message)
    host = Host(flow, how.crash_after) if how.in_process or how.crash_after else None
    with ExitStack() as within:
        if host is not None:
            within.enter_context(mocks_by_reference())
            within.enter_context(tasks_have_output())
            within.callback(EnvironmentSnapshot().put_back)
            within.enter_context(thread_propagation())
            within.enter_context(tasks_named_in_records())
        if _has_loop():  # another cannot run in this thread
            return _in_thread(lambda: _drive(flow, how, parameters, host))
        return _drive(flow, how, parameters, host)


def _has_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _in_thread(call: Any) -> Run:
    outcome: Future[Run] = Future()
    thread = threading.Thread(target=lambda: _settle(outcome, call))
    thread.start()
    thread.join()
    return outcome.result()


def _settle(outcome: Future[Run], call: Any) -> None:
    try:
        outcome.set_result(call())
    except BaseException as error:  # noqa: BLE001 - the future carries it to the test
        outcome.set_exception(error)


def _drive(flow: type[FlowSpec], how: RunAs, parameters: dict[str, Any], host: Host | None) -> Run:
    """Run the engine in a thread of its own, and the tasks in this one."""
    outcome: Future[Run] = Future()

    def work() -> None:
        try:
            make_loop = how.clock.make_loop if how.clock is not None else None
            with asyncio.Runner(loop_factory=make_loop) as runner:
                _settle(outcome, lambda: runner.run(_run(flow, how, parameters, host)))
        finally:
            if host is not None:
                host.stop()

    thread = threading.Thread(target=work, name="asyncflow-engine")
    thread.start()
    if host is not None:
        host.serve()
    thread.join()
    if host is not None and host.interrupt is not None:
        raise host.interrupt
    try:
        return outcome.result()
    except RunFailedError as error:
        raise error.with_traceback(None) from (host.error if host is not None else None)
    except AsyncflowError as error:
        raise error.with_traceback(None)  # noqa: B904 - raised again, not from another


async def _run(
    flow: type[FlowSpec], how: RunAs, parameters: dict[str, Any], host: Host | None
) -> Run:
    settings = Settings.read(store=how.store or scratch_store())
    engine = Engine(settings=settings)
    if host is not None:
        quick = replace(settings, workers=1, blocked_seconds=0.0, keep_code="none")
        engine = Engine(settings=quick, executor=host)
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine is run by one
        host.cancel = lambda: loop.call_soon_threadsafe(task.cancel)
    async with engine:
        if how.resume is not None:
            handle = await engine.start_resumed(flow, origin=how.resume, tags=how.tags)
        else:
            handle = await engine.start(flow, tags=how.tags, **parameters)
        if how.crash_after:
            return await _crash(engine, handle, how.crash_after)
        return await handle


async def _crash(engine: Engine, handle: RunHandle, step: str) -> Run:
    """Break the run off once a task of the step is in its journal."""
    async for event in handle.events(TaskSucceeded):
        if event.step == step:
            break
    else:
        return await handle  # it has ended before
    engine._live.break_off()  # noqa: SLF001 - nothing in public ends a run without a last event
    with suppress(AsyncflowError):
        await handle
    return handle.run
