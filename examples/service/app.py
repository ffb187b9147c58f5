"""A web service that runs flows: one engine, held for as long as the application lives.

    python examples/service/app.py --port 8000

    /                   a page: runs as they go on, their graphs, logs and values, and a form that
                        starts one; its JSON is below /api (`/api/runs`, …)
    /longest/PACKAGE    the service's own: what the latest run about a package has found

Whoever is on this machine may start runs, and no page of somebody else in their browser may: the
page sees to that. The flow itself checks what it is asked for.
"""

from __future__ import annotations

import argparse
import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import uvicorn
from flows import LongestFunctions
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route

import asyncflow
from asyncflow import Engine, Flow
from asyncflow.errors import NotFoundError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request
    from starlette.responses import Response

MOST_CONNECTIONS = 100  # at once, the browsers that watch a run included

engine = Engine(workers=2)


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[None]:
    """Hold the engine; what still runs at the end is cancelled, and its journal says so."""
    async with engine:
        yield


def longest_in(package: str) -> Any:
    """What the latest run about a package has found; reads files, so it is called in a thread."""
    try:
        runs = Flow(LongestFunctions.__name__, store=engine.settings.store)
    except NotFoundError:  # nothing has run yet
        return None
    found = runs.runs(status="succeeded", parameters={"package": package})
    return next((run.data.longest for run in found), None)


async def show_longest(request: Request) -> Response:
    """Answer with the longest functions of a package."""
    package = request.path_params["package"]
    longest = await asyncio.to_thread(longest_in, package)
    if longest is None:
        return JSONResponse({"error": f"no run has looked at {package}"}, 404)
    return JSONResponse({"package": package, "longest": longest})


app = Starlette(
    lifespan=lifespan,
    routes=[
        Route("/longest/{package}", show_longest),
        Mount("/", asyncflow.page(engine, flows=[LongestFunctions])),
    ],
)


def main() -> None:
    """Serve until Ctrl-C."""
    options = argparse.ArgumentParser(description="A web service that runs a flow.")
    options.add_argument("--port", type=int, default=8000)
    port = options.parse_args().port
    # A browser that watches a run would hold up the end for as long as the run goes on.
    uvicorn.run(app, port=port, timeout_graceful_shutdown=1, limit_concurrency=MOST_CONNECTIONS)


if __name__ == "__main__":
    main()
