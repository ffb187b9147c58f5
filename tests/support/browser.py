"""A headless Chromium for tests, by the W3C's WebDriver protocol."""

from __future__ import annotations

import base64
import os
import shutil
import socket
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SECONDS = 180.0  # nothing that is waited for takes a hundredth of it on an idle machine


def free_port() -> int:
    """A port that nobody listens on, and that the system gives to nobody for a minute.

    It has had a connection, which was closed at this end: only a server may have it, which says
    that it does not mind.
    """
    with socket.socket() as listening, socket.socket() as other:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", 0))
        listening.listen(1)
        other.connect(listening.getsockname())
        listening.accept()[0].close()
        return int(listening.getsockname()[1])


def wait_until(true: Callable[[], Any], what: str) -> Any:
    """Ask again and again; fail when it takes too long."""
    deadline = time.monotonic() + SECONDS
    while not (found := true()):
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.02)
    return found


class Browser:
    """A headless Chromium."""

    OPTIONS = (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--hide-scrollbars",
    )

    def __init__(self, driver: str, chromium: str, profile: Path) -> None:
        self.http = httpx.Client(base_url=driver, timeout=SECONDS)
        try:
            self.session = self._begin(chromium, profile)
        except BaseException:
            self.http.close()
            raise

    def _begin(self, chromium: str, profile: Path) -> str:
        wait_until(self.is_ready, "the browser's driver answers")
        args = [*self.OPTIONS, f"--user-data-dir={profile}"]
        options = {"binary": chromium, "args": args}
        logged = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        made = self.post("/session", capabilities={"alwaysMatch": logged})
        return f"/session/{made['sessionId']}"

    def is_ready(self) -> bool:
        """Whether the driver takes requests."""
        try:
            return bool(self.http.get("/status").json()["value"]["ready"])
        except httpx.TransportError:
            return False

    def post(self, path: str, **body: Any) -> Any:
        """A command, and what it gives."""
        answer = self.http.post(path, json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()["value"]

    def open(self, url: object) -> None:
        """Go to a page."""
        self.post(f"{self.session}/url", url=str(url))

    def run(self, script: str, *args: Any) -> Any:
        """What a piece of JavaScript returns in the page."""
        return self.post(f"{self.session}/execute/sync", script=script, args=list(args))

    def text(self, element: str) -> str:
        """What the element of this id shows."""
        return str(self.run("return document.getElementById(arguments[0]).innerText", element))

    def shown(self, selector: str) -> str:
        """What the first element that matches shows; empty if there is none."""
        script = (
            "const found = document.querySelector(arguments[0]);"
            "return found?.innerText ?? found?.textContent ?? ''"  # SVG has no innerText
        )
        return str(self.run(script, selector))

    def count(self, selector: str) -> int:
        """How many elements match."""
        return int(self.run("return document.querySelectorAll(arguments[0]).length", selector))

    def shown_in_frame(self, selector: str) -> str:
        """What the document in a frame shows, whatever its origin."""
        found = self.post(f"{self.session}/element", using="css selector", value=selector)
        self.post(f"{self.session}/frame", id=found)
        try:
            return self.shown("body")
        finally:
            self.post(f"{self.session}/frame", id=None)

    def click(self, selector: str) -> None:
        """Click as a person does."""
        found = self._find(selector)
        self.post(f"{self.session}/element/{found}/click")

    def write(self, selector: str, text: str) -> None:
        """Type into a field, in place of what it has."""
        found = self._find(selector)
        self.run("document.querySelector(arguments[0]).select()", selector)
        self.post(f"{self.session}/element/{found}/value", text=text)

    def press(self, *keys: str) -> None:
        """Press keys one after the other, wherever the focus is."""
        actions = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        source = {"type": "key", "id": "keyboard", "actions": actions}
        self.post(f"{self.session}/actions", actions=[source])

    def resize(self, width: int, height: int) -> None:
        """Make the page so large, in CSS pixels, whatever a window may have at least."""
        self.devtools(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def prefer(self, scheme: str) -> None:
        """Have the page be told that the user likes it `dark` or `light`."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.devtools("Emulation.setEmulatedMedia", features=features)

    def devtools(self, command: str, **params: Any) -> Any:
        """A command of Chromium's own protocol, and what it gives."""
        return self.post(f"{self.session}/goog/cdp/execute", cmd=command, params=params)

    def picture(self, file: Path) -> None:
        """Write what is seen into a PNG file."""
        answer = self.http.get(f"{self.session}/screenshot")
        file.write_bytes(base64.b64decode(answer.json()["value"]))

    def complaints(self) -> list[str]:
        """What the browser's console has said since the last look: errors and warnings."""
        entries = self.post(f"{self.session}/se/log", type="browser")
        return [each["message"] for each in entries if each["level"] in {"SEVERE", "WARNING"}]

    def close(self) -> None:
        """End it."""
        self.http.delete(self.session)
        self.http.close()

    def _find(self, selector: str) -> str:
        found = self.post(f"{self.session}/element", using="css selector", value=selector)
        return str(next(iter(found.values())))


@contextmanager
def chromium(folder: Path) -> Iterator[Browser]:
    """A browser with an empty profile in this folder; skips the test where none is installed."""
    driver, program = shutil.which("chromedriver"), shutil.which("chromium")
    if driver is None or program is None:
        pytest.skip("no chromium and chromedriver here: `make browser` installs Debian's")
    port = free_port()
    command, home = [driver, f"--port={port}"], {**os.environ, "HOME": str(folder)}
    with subprocess.Popen(command, env=home, stdout=subprocess.DEVNULL) as process:
        try:
            browser = Browser(f"http://127.0.0.1:{port}", program, folder / "profile")
            try:
                yield browser
            finally:
                browser.close()
        finally:
            process.terminate()
