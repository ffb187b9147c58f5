"""Fetch many pages at once: `async def` steps, side by side on a worker's event loop.

The pages come from an HTTP server that the flow starts on this machine, so that the example needs
no network. Run it with `asyncflow run examples/fetch_pages.py --pages 200`.
"""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import ClassVar

from asyncflow import FlowSpec, Parameter, step


class FetchPages(FlowSpec):
    """Fetch pages from a slow server, and count the words of all of them."""

    pages = Parameter("pages", default=100, help="how many pages to fetch")
    delay = Parameter("delay", default=0.2, help="seconds that the server takes for a page")
    url = Parameter("url", default="", help="a server of your own, as http://host:port")

    @step
    async def start(self) -> None:
        """Say which pages there are."""
        self.numbers = range(self.pages)
        self.began = time.time()
        self.next(self.fetch, foreach="numbers")

    @step
    async def fetch(self) -> None:
        """Fetch one page; hundreds of these wait at the same time."""
        url = self.url or await SlowServer.url(self.delay)
        self.text = await get(url, f"/page/{self.input}")
        self.words = len(self.text.split())
        self.next(self.count)

    @step
    def count(self, inputs) -> None:
        """Add up what the pages say."""
        self.total = sum(page.words for page in inputs)
        self.seconds = time.time() - inputs[0].began
        self.next(self.end)

    @step
    def end(self) -> None:
        """Compare with fetching one page after the other."""
        print(f"{self.pages} pages, {self.total} words in {self.seconds:.2f} s")
        print(f"one after the other it would take {self.pages * self.delay:.0f} s")


async def get(url: str, path: str) -> str:
    """The body that a server sends for a path."""
    host, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    await writer.drain()
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer.decode().partition("\r\n\r\n")[2]


class SlowServer:
    """A slow HTTP server on this machine; the tasks that share an event loop share one."""

    _starting: ClassVar[asyncio.Task[asyncio.Server] | None] = None

    @classmethod
    async def url(cls, delay: float) -> str:
        """Where it listens; it is started by the first who asks, and ends with the worker."""
        if cls._starting is None:
            serve = partial(cls._answer, delay)
            start = asyncio.start_server(serve, "127.0.0.1", 0, backlog=1000)
            cls._starting = asyncio.ensure_future(start)
        server = await cls._starting
        return f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    @staticmethod
    async def _answer(
        delay: float, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(delay)
        number = request.split()[1].rsplit(b"/", 1)[-1].decode()
        body = f"This is page {number} of many, and it says little else."
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        writer.write((head + body).encode())
        await writer.drain()
        writer.close()


if __name__ == "__main__":
    FetchPages()
