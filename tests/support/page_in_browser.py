"""The page on a server, in a real browser: for tests, and for the pictures of the documentation."""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from tests.support.browser import SECONDS, chromium, free_port, wait_until
from tests.support.cutting_proxy import cutting_proxy

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]


class Pages:
    """A server with a page, and a browser that shows it."""

    def __init__(self, client, browser, way):
        self.client, self.browser, self.way = client, browser, way
        self.url = f"http://127.0.0.1:{way.port}/flows/"
        self.token = client.get("/flows/api/info").json()["action_token"]

    def post(self, path, **body):
        """Do what an action does."""
        answer = self.client.post(
            f"/flows/api/{path}", json=body, headers={"X-Asyncflow-Token": self.token}
        )
        assert answer.status_code == 200, answer.text
        return answer.json()

    def get(self, path):
        """What the server answers."""
        return self.client.get(f"/flows/api/{path}").json()

    def start(self, flow, **parameters):
        """Start a run; its pathspec."""
        return self.post(f"flows/{flow}/run", parameters=parameters, tags=[])["run"]

    def ended(self, pathspec):
        """The same run when it has ended."""
        path = f"runs/{pathspec}"
        wait_until(lambda: self.get(path)["run"]["status"] != "running", f"{pathspec} ends")
        return pathspec

    def show(self, place, seen="main h1, main .panel"):
        """Go to a place of the page, and wait for something there."""
        self.browser.open("about:blank")
        self.browser.open(f"{self.url}#/{place}")
        wait_until(lambda: self.browser.count(seen), f"{seen} in {place}")

    def sees(self, text, selector="main"):
        """Wait for a text in an element."""
        wait_until(lambda: text in self.browser.shown(selector), f"{text!r} in {selector}")

    def place(self):
        """Where the page is: what its address has behind the `#`."""
        return self.browser.run("return location.hash")

    def at(self, part):
        """Wait for the address to have this part."""
        wait_until(lambda: part in self.place(), f"{part} in the address")


@contextmanager
def server_of(store):
    """A page on a store, in a process of its own; a client of it."""
    port = free_port()
    command = [sys.executable, "-m", "tests.support.page_server", str(store), str(port)]
    with (
        subprocess.Popen(command, cwd=ROOT) as process,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=SECONDS) as client,
    ):
        try:
            wait_until(lambda: answers(client), "the page answers")
            yield client
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(SECONDS)


def answers(client):
    """Whether anybody is there."""
    try:
        return client.get("/flows/api/info").status_code == 200
    except httpx.TransportError:
        return False


@contextmanager
def page_in_browser(folder: Path, store: Path | None = None) -> Iterator[Pages]:
    """A server on a store in this folder, and a browser whose way to it can be cut."""
    with (
        chromium(folder) as browser,
        server_of(store or folder / "store") as client,
        cutting_proxy(client.base_url.port) as way,
    ):
        browser.resize(1280, 900)
        yield Pages(client, browser, way)
