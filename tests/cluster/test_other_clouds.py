"""Stores in Azure's and in Google's object store: what they ask for and S3 does not.

Azurite is Azure's own emulator, which `make azurite` installs. Nothing like it speaks the protocol
that obstore uses with Google, so a small server here keeps generations as Google's does.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import shutil
import subprocess
import time
import uuid
from email.utils import formatdate
from http import HTTPStatus
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, ClassVar

import pytest

from asyncflow import Flow
from asyncflow.store.object_store.object_store import probe
from asyncflow.store.object_store.objects import Objects
from tests.support import command_line
from tests.support.browser import free_port

if TYPE_CHECKING:
    from collections.abc import Generator

pytestmark = pytest.mark.cluster

_HERE = Path(__file__).parents[2] / "build" / "azurite" / "node_modules" / ".bin" / "azurite-blob"
_ACCOUNT = "devstoreaccount1"
# Azurite's own, which everybody knows; obstore has it as well.
_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
_VERSION = "2021-08-06"
_FLOW = """
from asyncflow import FlowSpec, step


class Sizes(FlowSpec):
    @step
    def start(self):
        self.numbers = range(3)
        self.next(self.work, foreach="numbers")

    @step
    def work(self):
        self.middling = bytes([self.input]) * 20_000
        self.large = bytes([self.input]) * 500_000
        self.next(self.join)

    @step
    def join(self, inputs):
        self.total = sum(len(each.middling) + len(each.large) for each in inputs)
        assert not FAILS
        self.next(self.end)

    @step
    def end(self):
        pass
"""


@pytest.fixture(scope="session")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Generator[str, None, None]:
    """The address of a running Azurite."""
    program = os.fspath(_HERE) if _HERE.exists() else shutil.which("azurite-blob")
    if program is None:
        pytest.skip("Azurite is not installed: `make azurite` installs it, and needs npm")
    folder, port = tmp_path_factory.mktemp("azurite"), free_port()
    log = (folder / "log").open("w")
    options = ["--blobPort", str(port), "--skipApiVersionCheck", "--disableTelemetry", "--silent"]
    process = subprocess.Popen(
        [program, *options, "--inMemoryPersistence"], cwd=folder, stdout=log, stderr=log
    )
    address = f"127.0.0.1:{port}"
    try:
        _wait_for(address, process)
        yield address
    finally:
        process.kill()
        process.wait()
        log.close()


def _wait_for(address: str, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 60
    while True:
        try:
            connection = HTTPConnection(address, timeout=5)
            connection.request("GET", "/")
            connection.getresponse().read()
            connection.close()
        except ConnectionRefusedError:
            assert process.poll() is None, "Azurite has ended"
            assert time.monotonic() < until, "Azurite does not answer"
            time.sleep(0.1)
        else:
            return


def _create_container(address: str, name: str) -> None:
    path, date = f"/{_ACCOUNT}/{name}", formatdate(usegmt=True)
    headers = {"x-ms-date": date, "x-ms-version": _VERSION}
    asked = "".join(f"{name}:{value}\n" for name, value in headers.items())
    text = "PUT" + 12 * "\n" + f"{asked}/{_ACCOUNT}{path}\nrestype:container"
    signature = hmac.new(base64.b64decode(_KEY), text.encode(), hashlib.sha256).digest()
    headers["Authorization"] = f"SharedKey {_ACCOUNT}:{base64.b64encode(signature).decode()}"
    connection = HTTPConnection(address, timeout=10)
    connection.request("PUT", f"{path}?restype=container", headers=headers)
    answer = connection.getresponse()
    told = answer.read()
    assert answer.status == HTTPStatus.CREATED, told
    connection.close()


@pytest.fixture
def container(azurite: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of an empty container, which this process finds by its environment."""
    for name in ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AZURE_STORAGE_USE_EMULATOR", "true")
    monkeypatch.setenv("AZURITE_BLOB_STORAGE_URL", f"http://{azurite}")
    name = f"test-{uuid.uuid4().hex[:12]}"
    _create_container(azurite, name)
    return f"az://{name}/flows"


def test_azure_keeps_the_conditions_of_a_store(container: str) -> None:
    """It takes the word that goes with a conditional write, whose name it restricts."""
    objects = Objects.open(container)
    probe(objects)
    first = objects.create_version("a", b"first")
    assert first
    assert objects.create("a", b"second") == b"first"
    second = objects.replace("a", b"second", first)
    assert second
    assert objects.replace("a", b"third", first) is None
    assert objects.get("a") == b"second"


def test_runs_in_azure_can_be_resumed_verified_collected_and_copied(
    container: str, tmp_path: Path
) -> None:
    """Whatever works with S3 works there: the values are read again on another machine."""
    flow = tmp_path / "sizes.py"
    flow.write_text(f"FAILS = True\n{_FLOW}")
    assert command_line.asyncflow("run", flow, "--store", container).status == 1
    flow.write_text(f"FAILS = False\n{_FLOW}")
    copied = os.fspath(tmp_path / "copied")
    for command in (
        ("resume", flow, "--store", container),
        ("verify", "--store", container),
        ("gc", "--store", container),
        ("copy", container, copied),
        ("verify", "--store", copied),
        ("copy", copied, f"{container}-2"),
        ("verify", "--store", f"{container}-2"),
    ):
        said = command_line.asyncflow(*command)
        assert said.status == 0, said
    for place in (container, copied, f"{container}-2"):
        run = Flow("Sizes", store=place).latest_run
        assert run is not None
        assert run.data.total == 3 * 520_000


class _Generations(BaseHTTPRequestHandler):
    """Objects with generations: a put heeds `x-goog-if-generation-match`."""

    objects: ClassVar[dict[str, tuple[int, bytes, dict[str, str]]]] = {}

    def do_PUT(self) -> None:
        """Write an object, if the one that is there has the generation that is asked for."""
        data = self.rfile.read(int(self.headers["content-length"]))
        there = self.objects.get(self.path, (0, b"", {}))[0]
        wanted = self.headers.get("x-goog-if-generation-match")
        if wanted is not None and int(wanted) != there:
            self._answer(HTTPStatus.PRECONDITION_FAILED)
            return
        words = {name: text for name, text in self.headers.items() if "x-goog-meta" in name}
        self.objects[self.path] = there + 1001, data, words
        self._answer(HTTPStatus.OK, there + 1001)

    def do_GET(self) -> None:
        """Tell an object."""
        if self.path not in self.objects:
            self._answer(HTTPStatus.NOT_FOUND)
            return
        generation, data, words = self.objects[self.path]
        self._answer(HTTPStatus.OK, generation, data, words)

    def do_HEAD(self) -> None:
        """Tell an object, without its bytes."""
        self.do_GET()

    def do_DELETE(self) -> None:
        """Delete one."""
        self.objects.pop(self.path, None)
        self._answer(HTTPStatus.NO_CONTENT)

    def _answer(
        self,
        status: HTTPStatus,
        generation: int = 0,
        data: bytes = b"",
        words: dict[str, str] | None = None,
    ) -> None:
        self.send_response(status)
        for name, text in (words or {}).items():
            self.send_header(name, text)
        if generation:
            self.send_header("etag", '"always-the-same"')
            self.send_header("x-goog-generation", str(generation))
            self.send_header("last-modified", formatdate(usegmt=True))
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def google() -> Generator[Objects, None, None]:
    """Objects behind obstore's client for Google."""
    from obstore.store import GCSStore

    server = ThreadingHTTPServer(("127.0.0.1", 0), _Generations)
    thread = Thread(target=server.serve_forever)
    thread.start()
    account = f'{{"gcs_base_url": "http://127.0.0.1:{server.server_port}", "disable_oauth": true, '
    account += '"client_email": "", "private_key": "", "private_key_id": ""}'
    client = GCSStore(
        "bucket",
        config={"service_account_key": account},
        client_options={"allow_http": True},
        retry_config={"max_retries": 0},
    )
    yield Objects(lambda: client, "gs://bucket", patience_seconds=0.0)
    server.shutdown()
    thread.join()
    server.server_close()


def test_google_replaces_by_generation(google: Objects) -> None:
    """It compares no ETag: an object is replaced by the number that its version has."""
    probe(google)
    first = google.create_version("a", b"first")
    assert first
    assert google.create("a", b"second") == b"first"
    assert google.get_with_facts("a")[1].e_tag == first
    second = google.replace("a", b"second", first)
    assert second
    assert google.replace("a", b"third", first) is None
    assert google.get_with_facts("a") == (b"second", google.head("a"))
    assert google.replace("a", b"third", google.head("a").e_tag)
