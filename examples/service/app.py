"""A web service that runs flows: one engine, held for as long as the application lives.

    python examples/service/app.py --port 8000

    POST   /runs                {"package": "json"}   starts a run
    GET    /runs                                      the latest runs
    GET    /runs/{id}                                 how a run stands, and what it found
    GET    /runs/{id}/events                          its events as they come (server-sent events)
    DELETE /runs/{id}                                 cancels it
    GET    /                                          a page that uses all of these

A browser that loses the connection comes back with the number of the last event that it has seen,
and goes on from there: none is missing, none comes twice.

Whoever is on this machine may start runs, and no page of somebody else in their browser may:
`refusal` sees to that. What callers send is looked at before anything is done with it, and all that
they can ask for has a bound.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
from contextlib import asynccontextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import uvicorn
from flows import LongestFunctions
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from asyncflow import Engine, Flow, Run, RunHandle, events
from asyncflow.errors import NotFoundError, ParameterError, RunCancelledError, RunFailedError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.types import ASGIApp, Receive, Scope, Send

FLOW = LongestFunctions.__name__
PAGE = Path(__file__).parent / "page.html"
SHOWN_RUNS = 20

HOSTS = {"127.0.0.1", "localhost", "[::1]"}  # the names by which this service is reached
PACKAGES = ("asyncio", "email", "http", "json", "unittest")  # a caller cannot have others imported
LONGEST_PAUSE = 60  # seconds: workers are for everybody
MOST_FUNCTIONS = 100
MOST_RUNS = 20  # at once
MOST_BODY_BYTES = 10_000
MOST_TAGS = 5
MOST_REQUESTS = 100  # at once, the browsers that watch a run included


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """Hold an engine; what still runs at the end is cancelled, and its journal says so."""
    async with Engine(workers=2) as engine, anyio.create_task_group() as tasks:
        app.state.engine, app.state.tasks = engine, tasks
        app.state.handles = {}
        yield
        tasks.cancel_scope.cancel()


# --- runs -------------------------------------------------------------------------------------


async def start_run(request: Request) -> Response:
    """Start a run, and answer at once: it goes on by itself."""
    engine: Engine = request.app.state.engine
    tags, parameters = checked(await body_of(request))
    running = engine.statistics()
    if running.runs + running.runs_waiting >= MOST_RUNS:
        raise HTTPException(429, f"{MOST_RUNS} runs go on already: try again later")
    try:
        handle = await engine.start(LongestFunctions, tags=tags, **parameters)
    except ParameterError as error:
        raise HTTPException(400, str(error)) from error
    request.app.state.tasks.start_soon(keep, request.app.state.handles, handle)
    where = f"/runs/{handle.run_id}"
    return JSONResponse({"id": handle.run_id, "url": where}, 201, {"Location": where})


async def body_of(request: Request) -> dict[str, Any]:
    """The JSON object that a request carries; no more of it is read than it may have."""
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise HTTPException(415, "the body is to be JSON: send Content-Type: application/json")
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MOST_BODY_BYTES:
            raise HTTPException(413, f"the body is to have at most {MOST_BODY_BYTES} bytes")
    try:
        given = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, f"the body is not JSON: {error}") from error
    if not isinstance(given, dict):
        raise HTTPException(400, "the body is to be a JSON object: the flow's parameters by name")
    return given


def checked(given: dict[str, Any]) -> tuple[list[str], dict[str, Any]]:
    """The tags and the parameters of a run, if they are what a caller may ask for."""
    parameters: dict[str, Any] = {"package": "asyncio", "top": 5, "pause": 0.0, "tags": []} | given
    tags = parameters.pop("tags")
    package, top, pause = parameters["package"], parameters["top"], parameters["pause"]
    if unknown := parameters.keys() - {"package", "top", "pause"}:
        raise HTTPException(400, f"there is no parameter {min(unknown)!a}")
    if package not in PACKAGES:
        raise HTTPException(400, f"package is to be one of {', '.join(PACKAGES)}")
    if type(top) is not int or not 1 <= top <= MOST_FUNCTIONS:
        raise HTTPException(400, f"top is to be a number from 1 to {MOST_FUNCTIONS}")
    if type(pause) not in {int, float} or not 0 <= pause <= LONGEST_PAUSE:
        raise HTTPException(400, f"pause is to be a number from 0 to {LONGEST_PAUSE}")
    if type(tags) is not list or len(tags) > MOST_TAGS or not all(map(is_tag, tags)):
        raise HTTPException(400, f"tags are to be at most {MOST_TAGS} words of 1 to 40 letters")
    return tags, parameters


def is_tag(value: object) -> bool:
    """Whether a caller may mark a run with it."""
    return isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9_.:-]{1,40}", value) is not None


async def keep(handles: dict[str, RunHandle], handle: RunHandle) -> None:
    """Have the handle at hand until its run has ended, so that it can be cancelled."""
    handles[handle.run_id] = handle
    with suppress(RunFailedError, RunCancelledError):  # whoever looks at the run is told
        await handle
    del handles[handle.run_id]


async def list_runs(_: Request) -> Response:
    """The latest runs, newest first."""
    return JSONResponse(await asyncio.to_thread(latest_runs))


def latest_runs() -> list[dict[str, Any]]:
    """How the latest runs stand; reads files, so it is called in a thread."""
    try:
        return [state_of(run) for run in islice(Flow(FLOW), SHOWN_RUNS)]
    except NotFoundError:
        return []


async def show_run(request: Request) -> Response:
    """How one run stands."""
    run = await find_run(request)
    return JSONResponse(await asyncio.to_thread(state_of, run))


def state_of(run: Run) -> dict[str, Any]:
    """What a program wants to know of a run."""
    return {
        "id": run.id,
        "status": run.status,
        "package": run["start"].task.data.package if run.successful else None,
        "longest": run.data.longest if run.successful else None,
    }


async def find_run(request: Request) -> Run:
    """The run that the path names."""
    try:
        return await asyncio.to_thread(Run, f"{FLOW}/{request.path_params['id']}")
    except NotFoundError as error:
        raise HTTPException(404, str(error)) from error


async def cancel_run(request: Request) -> Response:
    """Have a run stopped."""
    run = await find_run(request)
    handle = request.app.state.handles.get(run.id)
    if handle is None:
        raise HTTPException(409, "the run has ended")
    handle.cancel("cancelled over HTTP")
    return Response(status_code=202)


# --- events -----------------------------------------------------------------------------------


async def send_events(request: Request) -> Response:
    """The run's events, from the first or from where the browser broke off, until it ends."""
    run = await find_run(request)
    seen = request.headers.get("last-event-id", "0")
    if not re.fullmatch("[0-9]{1,18}", seen):
        raise HTTPException(400, f"Last-Event-ID is to be the id of an event, not {seen[:40]!r}")
    stream = event_stream(request.app.state.engine, run, int(seen))
    headers = {"Cache-Control": "no-store"}
    return StreamingResponse(stream, media_type="text/event-stream", headers=headers)


async def event_stream(engine: Engine, run: Run, since: int) -> AsyncIterator[str]:
    """Each event in the form that browsers expect; its number is its id."""
    async with engine.subscribe(run=run.pathspec, since=since) as stream:
        async for event in stream:
            yield f"id: {event.seq}\ndata: {events.to_json(event)}\n\n"
    yield "event: end\ndata:\n\n"  # else the browser would connect again


# --- who may ask ------------------------------------------------------------------------------


def refusal(request: Request) -> str:
    """Why a request is not answered; nothing if it is.

    A browser sends what any page tells it to. It says in `Origin` which page that was; and a page
    whose own name was made to lead to this machine (DNS rebinding) shows in `Host`.
    """
    host, origin = request.headers.get("host", ""), request.headers.get("origin")
    if re.sub(":[0-9]+$", "", host) not in HOSTS:
        return "this service is not reached by that name"
    if origin is not None and origin != f"{request.url.scheme}://{host}":
        return "a page of somebody else may not use this service"
    return ""


class RefusesStrangers:
    """Has only requests come to the application that are for it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or hand it on."""
        if scope["type"] == "http" and (why := refusal(Request(scope))):
            await JSONResponse({"error": why}, 403)(scope, receive, send)
        else:
            await self.app(scope, receive, send)


# --- the application --------------------------------------------------------------------------


async def show_page(_: Request) -> Response:
    """The page."""
    return FileResponse(PAGE)


async def tell_error(_: Request, error: Exception) -> Response:
    """Errors are JSON, too."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    told = getattr(error, "detail", "the service failed; its log says more")
    return JSONResponse({"error": told}, status)


app = Starlette(
    lifespan=lifespan,
    routes=[
        Route("/", show_page),
        Route("/runs", list_runs),
        Route("/runs", start_run, methods=["POST"]),
        Route("/runs/{id}", show_run),
        Route("/runs/{id}", cancel_run, methods=["DELETE"]),
        Route("/runs/{id}/events", send_events),
    ],
    middleware=[Middleware(RefusesStrangers)],
    exception_handlers={HTTPException: tell_error, Exception: tell_error},
)


def main() -> None:
    """Serve until Ctrl-C."""
    options = argparse.ArgumentParser(description="A web service that runs a flow.")
    options.add_argument("--port", type=int, default=8000)
    port = options.parse_args().port
    # A browser that watches a run would hold up the end for as long as the run goes on.
    uvicorn.run(app, port=port, timeout_graceful_shutdown=1, limit_concurrency=MOST_REQUESTS)


if __name__ == "__main__":
    main()
