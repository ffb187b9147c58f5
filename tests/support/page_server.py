"""An application with the page of an engine: python -m tests.support.page_server STORE PORT MODULE.

The module has the flows of which runs can be started, as `FLOWS`.
"""

from __future__ import annotations

import asyncio
import importlib
import sys

import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount

import asyncflow
from asyncflow import Engine


async def serve(store: str, port: int, module: str) -> None:
    """Serve until the process is told to end."""
    flows = importlib.import_module(module).FLOWS
    async with Engine(store=store, workers=3) as engine:
        app = Starlette(routes=[Mount("/flows", asyncflow.page(engine, flows=flows))])
        config = uvicorn.Config(app, port=port, log_level="warning", timeout_graceful_shutdown=1)
        await uvicorn.Server(config).serve()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
