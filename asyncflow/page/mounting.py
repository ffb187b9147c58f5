"""Makes the page: an ASGI application, to mount in another one or to be served by itself."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

from asyncflow._support.locations import absolute_location
from asyncflow._support.settings import Settings
from asyncflow.engine.engine import Engine
from asyncflow.errors import NotInstalledError

try:
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.routing import Mount, Route
    from starlette.staticfiles import StaticFiles
except ModuleNotFoundError as missing:
    message = 'the page needs Starlette and uvicorn: pip install "asyncflow-engine[ui]"'
    raise NotInstalledError(message) from missing

from asyncflow.page.answers import error_answer
from asyncflow.page.guard import Guard, HostNames, Token
from asyncflow.page.opened_runs import OpenedRuns
from asyncflow.page.routes import Options, Routes

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable

    from starlette.requests import Request
    from starlette.responses import Response

    from asyncflow.flow.spec import FlowSpec

STATIC: Final = Path(__file__).parent / "static"
_INLINE_SCRIPT: Final = re.compile(rb"<script\b(?![^>]*\bsrc=)[^>]*>(.*?)</script>", re.DOTALL)


def page(
    source: Engine | str | os.PathLike[str],
    *,
    flows: Iterable[type[FlowSpec]] = (),
    read_only: bool = False,
    token: str | None = None,
    hosts: Iterable[str] = (),
) -> Starlette:
    """The page that shows the runs of a store, as an ASGI application.

        app.mount("/flows", asyncflow.page(engine, flows=[Train], hosts=["flows.example.org"]))

    Whoever reaches it may see all runs, cancel them and change their tags, unless it is
    `read_only` or has a `token`. Only loopback names reach it, and those of `hosts`.

    Args:
        source: An engine, or the folder or URL of a store.
        flows: With an engine: the flows of which runs may be started and resumed here.
        read_only: Refuse everything that changes something.
        token: A secret that a browser or program must show, see the page "The page's JSON".
        hosts: Further names by which a browser reaches the page.

    Raises:
        NotInstalledError: Starlette is missing.
        StoreError: There is no store, or it cannot be read; with an engine, on the first request.
    """
    from asyncflow.page.launching import EngineLauncher

    engine = source if isinstance(source, Engine) else None
    location = engine.settings.store if engine is not None else Settings.read(store=source).store
    launcher = EngineLauncher(engine, flows) if engine is not None and not read_only else None
    return application(
        OpenedRuns(str(absolute_location(location)), later=engine is not None),
        Options(read_only=read_only, launcher=launcher),
        token=Token(token),
        hosts=HostNames(hosts),
    )


def application(
    opened: OpenedRuns, options: Options, *, token: Token, hosts: HostNames
) -> Starlette:
    """The page as an application, from its parts."""
    index = STATIC / "index.html"
    routes = Routes(opened, options, action_token=token.action)

    async def show_page(_: Request) -> Response:
        from starlette.responses import FileResponse

        return FileResponse(index, media_type="text/html", headers={"Cache-Control": "no-cache"})

    guard = Middleware(Guard, token=token, hosts=hosts, scripts=script_hashes(index))
    return Starlette(
        routes=[
            Route("/", show_page),
            *routes.all(),
            Mount("/static", StaticFiles(directory=STATIC)),
        ],
        middleware=[guard],
        exception_handlers=dict.fromkeys([*_HANDLED], _answer_error),
        lifespan=None,
    )


async def _answer_error(_: Request, error: Exception) -> Response:
    return error_answer(error)


_HANDLED: Final[tuple[type[Exception], ...]] = (Exception,)


def script_hashes(html: Path) -> str:
    """What the policy says of the scripts that stand in a page, such as its import map."""
    try:
        scripts = _INLINE_SCRIPT.findall(html.read_bytes())
    except OSError:
        return ""
    hashes = (base64.b64encode(hashlib.sha256(each).digest()).decode() for each in scripts)
    return "".join(f" 'sha256-{each}'" for each in hashes)
