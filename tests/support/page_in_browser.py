"""The page on a server, in a real browser: for tests, and for the pictures of the documentation."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from tests.support.browser import SECONDS, Browser, chromium, free_port, wait_until
from tests.support.cutting_proxy import CuttingProxy, cutting_proxy

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]


class Pages:
    """A server with a page, and a browser that shows it."""

    def __init__(self, client: httpx.Client, browser: Browser, way: CuttingProxy) -> None:
        self.client, self.browser, self.way = client, browser, way
        self.url = f"http://127.0.0.1:{way.port}/flows/"
        self.token = client.get("/flows/api/info").json()["action_token"]

    def post(self, path: str, **body: Any) -> Any:
        """Do what an action does."""
        answer = self.client.post(
            f"/flows/api/{path}", json=body, headers={"X-Asyncflow-Token": self.token}
        )
        assert answer.status_code == 200, answer.text
        return answer.json()

    def get(self, path: str) -> Any:
        """What the server answers."""
        return self.client.get(f"/flows/api/{path}").json()

    def start(self, flow: str, **parameters: str) -> str:
        """Start a run; its pathspec."""
        return str(self.post(f"flows/{flow}/run", parameters=parameters, tags=[])["run"])

    def ended(self, pathspec: str) -> str:
        """The same run when it has ended."""
        path = f"runs/{pathspec}"
        wait_until(lambda: self.get(path)["run"]["status"] != "running", f"{pathspec} ends")
        return pathspec

    def show(self, place: str, seen: str = "main h1, main .panel") -> None:
        """Go to a place of the page, and wait for something there."""
        if self.browser.run("return location.href").startswith(self.url):
            # Quicker than to load the page anew; in between, nothing of the view before is left.
            self.browser.run("location.hash = '#/elsewhere'")
            self.sees("There is no such view")
            self.browser.run("performance.clearResourceTimings()")
            self.browser.run("location.hash = arguments[0]", f"#/{place}")
        else:
            self.browser.open(f"{self.url}#/{place}")
        wait_until(lambda: self.browser.count(seen), f"{seen} in {place}")

    def sees(self, text: str, selector: str = "main") -> None:
        """Wait for a text in an element."""
        wait_until(lambda: text in self.browser.shown(selector), f"{text!r} in {selector}")

    def place(self) -> str:
        """Where the page is: what its address has behind the `#`."""
        return str(self.browser.run("return location.hash"))

    def is_loaded(self) -> None:
        """Wait until nothing is asked for any more."""
        script = (
            "return !document.querySelector('[aria-busy=true]')"
            " && !document.querySelector('main').innerText.includes('Loading')"
            " && [...document.images].every((each) => each.complete)"
        )
        wait_until(lambda: self.browser.run(script), "all is loaded")

    def leaves(self, place: str) -> None:
        """Wait for the page to be elsewhere."""
        wait_until(lambda: self.place() != place, f"the page leaves {place}")

    def at(self, part: str) -> None:
        """Wait for the address to have this part."""
        wait_until(lambda: part in self.place(), f"{part} in the address")


@contextmanager
def server_of(store: Path, module: str, folder: Path) -> Iterator[httpx.Client]:
    """A page on a store, in a process of its own that works in this folder; a client of it."""
    port = free_port()
    command = [sys.executable, "-m", "tests.support.page_server", str(store), str(port), module]
    environ = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}
    with (
        subprocess.Popen(command, cwd=folder, env=environ) as process,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=SECONDS) as client,
    ):
        try:
            wait_until(lambda: answers(client), "the page answers")
            yield client
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(SECONDS)


def answers(client: httpx.Client) -> bool:
    """Whether anybody is there."""
    try:
        return client.get("/flows/api/info").status_code == 200
    except httpx.TransportError:
        return False


@contextmanager
def page_in_browser(
    folder: Path, *, store: Path | None = None, module: str = "tests.support.page_flows"
) -> Iterator[Pages]:
    """A browser, and a server on a store in this folder; the way between them can be cut."""
    with (
        chromium(folder) as browser,
        server_of(store or folder / "store", module, folder) as client,
        cutting_proxy(client.base_url.port or 80) as way,
    ):
        browser.resize(1280, 900)
        yield Pages(client, browser, way)
