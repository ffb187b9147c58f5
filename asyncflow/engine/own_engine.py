"""Runs one flow, with an engine of its own: `run`, `resume` and `run_sync`."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

from asyncflow.engine.arguments import check_flow
from asyncflow.engine.engine import Engine
from asyncflow.errors import AsyncflowError, RunFailedError
from asyncflow.flow import loader
from asyncflow.flow.parameters import raw_parameters_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable

    from asyncflow.client import Run
    from asyncflow.engine.run_handle import RunHandle
    from asyncflow.flow.spec import FlowSpec


async def run(
    flow: type[FlowSpec],
    /,
    *,
    tags: Iterable[str] = (),
    store: Any = None,
    workers: Any = None,
    **parameters: Any,
) -> Run:
    """Run a flow to its end, with an engine of its own.

    In a notebook, the cell shows how the run goes on, and what its tasks print.

    Args:
        flow: The flow class.
        tags: Those of the run.
        store: The folder of the store, or its URL, as of `Engine`.
        workers: How many workers there may be, as of `Engine`.
        parameters: Values of the flow's parameters. A parameter called `store` or `workers` takes
            the place of the argument of that name.

    Raises:
        RunFailedError: A task failed; the error says which one, and why.
        AsyncflowError: As from `Engine.run`.

    Cancelled: the run is cancelled too, and its journal says so before the cancellation goes on.
    """
    check_flow(flow)
    given = {"store": store, "workers": workers}
    own = {each.name for each in raw_parameters_of(flow).values()}
    parameters |= {
        name: value for name, value in given.items() if value is not None and name in own
    }
    options = {name: value for name, value in given.items() if name not in own}
    async with Engine(**options) as engine:
        return await _shown(engine.start(flow, tags=tags, **parameters))


async def resume(
    flow: type[FlowSpec],
    /,
    *,
    origin: str | int | Run | RunHandle | None = None,
    step: str | None = None,
    tags: Iterable[str] = (),
    store: Any = None,
    workers: int | None = None,
) -> Run:
    """Resume an earlier run to its end, with an engine of its own.

    In a notebook, the cell shows how the run goes on, and what its tasks print.

    Args:
        flow: The flow class, as it is now.
        origin: A run id, a pathspec, a `Run` or a handle; the flow's latest run if left out.
        step: The first step to run again.
        tags: Those of the new run.
        store: The folder of the store, or its URL, as of `Engine`.
        workers: How many workers there may be, as of `Engine`.

    Raises:
        RunFailedError: A task failed; the error says which one, and why.
        AsyncflowError: As from `Engine.resume`.

    Cancelled: the run is cancelled too, and its journal says so before the cancellation goes on.
    """
    async with Engine(store=store, workers=workers) as engine:
        return await _shown(engine.start_resumed(flow, origin=origin, step=step, tags=tags))


async def _shown(starting: Awaitable[RunHandle]) -> Run:
    """Wait for the end of a run; in a notebook, show it meanwhile."""
    handle = await starting
    shown: Awaitable[None] | None = None
    if "IPython" in sys.modules:
        from asyncflow.engine.notebook_view import in_notebook, show_run

        if in_notebook():
            shown = asyncio.create_task(show_run(handle), name=f"show {handle.pathspec}")
    try:
        return await handle
    except RunFailedError as error:
        # The message is complete; our own frames would add nothing.
        raise error.with_traceback(None)  # noqa: B904 - raised again, not from another
    finally:
        if shown is not None:
            await shown


def run_sync(
    flow: type[FlowSpec],
    /,
    *,
    tags: Iterable[str] = (),
    store: Any = None,
    workers: Any = None,
    **parameters: Any,
) -> Run:
    """The same as `run`, for code outside of an event loop.

    Raises:
        UnguardedRunError: The file of a flow starts a run whenever it is imported.
        AsyncflowError: Called where an event loop is running: await `asyncflow.run` there.
    """
    loader.check_may_start()
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        message = "an event loop is running here: write `await asyncflow.run(...)` instead"
        raise AsyncflowError(message)

    async def main() -> Run:
        return await run(flow, tags=tags, store=store, workers=workers, **parameters)

    import anyio

    try:
        return anyio.run(main)
    except AsyncflowError as error:
        # The message is complete; frames of the event loop would add nothing.
        raise error.with_traceback(None)  # noqa: B904 - raised again, not from another
