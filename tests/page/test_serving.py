"""`asyncflow ui`, as people start it."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager, suppress

import anyio
import httpx
import pytest

from asyncflow import Run
from asyncflow.page import connections
from tests.support.browser import SECONDS, wait_until
from tests.support.page_stores import begin, served

ASYNCFLOW = [sys.executable, "-m", "asyncflow"]
FLOW = """
import os
from asyncflow import FlowSpec, Parameter, step
class Mended(FlowSpec):
    '''Fails until it is mended.'''
    n = Parameter("n", default=1, help="how many")
    names = Parameter("names", type=int, default=(1, 2), multiple=True)
    table = Parameter("table", default={"a": [1]})
    @step
    def start(self):
        self.next(self.end)
    @step
    def end(self):
        assert os.path.exists("mended") or self.n > 5
"""


@contextmanager
def serving(store, *options):
    """`asyncflow ui` in a process of its own: that process, and a client with the token."""
    command = [*ASYNCFLOW, "ui", "--store", str(store), "--port", "0", *options]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=store.parent
    ) as server:
        address = server.stdout.readline().split()[-1]
        base, _, token = address.partition("?token=")
        headers = {"Authorization": f"Bearer {token}"}
        with httpx.Client(base_url=base, headers=headers, timeout=SECONDS) as client:
            try:
                yield server, client
            finally:
                server.send_signal(signal.SIGINT)


def test_it_serves_until_ctrl_c(tmp_path):
    """At an address with a token; a page that watches a run does not hold up its end."""
    begin(tmp_path / "store", "succeeded").finish()
    with serving(tmp_path / "store") as (server, client):
        assert client.get("api/runs").json()["runs"]
        assert "<!doctype html>" in client.get("").text.lower()
        with client.stream("GET", "api/watch") as stream:
            next(stream.iter_lines())
            server.send_signal(signal.SIGINT)
            _, errors = server.communicate(timeout=SECONDS)
    assert server.returncode == 130
    assert "Traceback" not in errors


def test_after_ctrl_c_it_says_nothing_of_the_requests_that_it_cuts(tmp_path):
    """Pages that go on reading, as browsers do."""
    begin(tmp_path / "store", "succeeded").finish()

    def watch(client):
        with suppress(httpx.HTTPError), client.stream("GET", "api/watch") as stream:
            for line in stream.iter_lines():
                told.extend([line])

    told: list[str] = []
    with serving(tmp_path / "store") as (server, client):
        pages = [threading.Thread(target=watch, args=(client,)) for _ in range(3)]
        for page in pages:
            page.start()
        wait_until(lambda: len(told) > 3, "the pages hear of the runs")
        server.send_signal(signal.SIGINT)
        _, errors = server.communicate(timeout=SECONDS)
        for page in pages:
            page.join()
    assert (server.returncode, errors.strip()) == (130, "")


def test_hundreds_of_idle_connections_lock_nobody_out(tmp_path):
    """Neither those that say nothing, nor those that never end a request."""
    begin(tmp_path / "store", "succeeded").finish()
    with serving(tmp_path / "store") as (_, client), ExitStack() as opened:
        place = client.base_url.host, client.base_url.port
        for number in range(700):
            idle = opened.enter_context(socket.create_connection(place))
            if number % 2:
                idle.sendall(b"GET /api/runs HTTP/1.1\r\nHost: 127.0.0.1\r\n")
        for _ in range(5):
            with httpx.Client(base_url=client.base_url, headers=client.headers) as fresh:
                assert fresh.get("api/runs").json()["runs"]


async def answer_late(_, __, send):
    """Answer later than a connection without a request is closed."""
    await anyio.sleep(0.6)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"done"})


def test_a_connection_without_a_request_is_closed(monkeypatch):
    """Whether it says nothing or sends its request byte by byte; one that is answered stays."""
    monkeypatch.setattr(connections, "_REQUEST_SECONDS", 0.3)
    with served(answer_late, http=connections.PageConnection) as address:
        place = httpx.URL(address).host, httpx.URL(address).port
        with socket.create_connection(place, timeout=SECONDS) as silent:
            assert not silent.recv(1)
        with socket.create_connection(place, timeout=SECONDS) as slow, suppress(OSError):
            while True:
                slow.sendall(b"G")
                time.sleep(0.05)
        assert httpx.get(address).text == "done"
    assert not connections._waiting


def test_a_request_that_came_during_the_answer_to_another_is_answered(monkeypatch):
    """However long that takes: its connection is not one that waits for a request."""
    monkeypatch.setattr(connections, "_REQUEST_SECONDS", 0.3)
    with served(answer_late, http=connections.PageConnection) as address:
        place = httpx.URL(address).host, httpx.URL(address).port
        with socket.create_connection(place, timeout=SECONDS) as both:
            both.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 2)
            answered = b"".join(iter(lambda: both.recv(1000), b""))
    assert answered.count(b"done") == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--host", "0.0.0.0"], "--token-file"),  # noqa: S104 - what is refused
        (["--store", "nothing"], "there is no store"),
    ],
)
def test_what_it_cannot_serve_is_told(tmp_path, options, said):
    """In a line, with what to do."""
    begin(tmp_path / "store", "succeeded").finish()
    command = [*ASYNCFLOW, "ui", "--store", "store", *options]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=SECONDS
    )
    assert done.returncode in {1, 2}
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_run_is_resumed_and_started_by_the_command_line(tmp_path):
    """In a process of its own, with the flow's file; what it complains of is told."""
    (tmp_path / "mended.py").write_text(FLOW)
    command = [*ASYNCFLOW, "run", "mended.py", "--store", "store", "--quiet"]
    subprocess.run(command, cwd=tmp_path, capture_output=True, check=False, timeout=SECONDS)
    store = tmp_path / "store"
    with serving(store) as (_, client):
        run = "api/runs/Mended/latest"
        plan = client.post("api/plan", json={"run": "Mended/latest"}).json()["steps"]
        assert plan == client.get("api/plan", params={"run": "Mended/latest"}).json()["steps"]
        form = client.get("api/flows/Mended/form").json()
        assert (form["known"], form["doc"]) == (True, "Fails until it is mended.")
        told = [(each["name"], each["type"], each["value"]) for each in form["parameters"]]
        assert told == [
            ("n", "int", "1"),
            ("names", "tuple of int", "1 2"),
            ("table", "JSON", '{"a": [1]}'),
        ]
        first = form["parameters"][0]
        assert (first["default"], first["help"]) == ("1", "how many")

        (tmp_path / "mended").touch()
        again = client.post(f"{run}/resume", json={}).json()["run"]
        wait_until(lambda: Run(again, store=store).successful, "the resumed run succeeds")
        assert Run(again, store=store).origin_run_id

        given = {each["name"]: each["value"] for each in form["parameters"]} | {"n": "9"}
        started = client.post("api/flows/Mended/run", json={"parameters": given}).json()["run"]
        wait_until(lambda: Run(started, store=store).finished, "the new run ends")
        data = Run(started, store=store)["start"].task.data
        assert (data.n, data.names, data.table) == (9, (1, 2), {"a": [1]})

        for given in ({"n": "many"}, {"store": "elsewhere"}, {"n": "1", "tag": "x"}):
            answer = client.post("api/flows/Mended/run", json={"parameters": given})
            assert answer.status_code in {400, 409}
            assert answer.json()["error"]["message"]
