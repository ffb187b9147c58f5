"""The web service among the examples, over real HTTP, and once in a real browser."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from asyncflow import Run
from asyncflow.values import Status
from tests.support.browser import SECONDS, chromium, free_port, wait_until

APP = Path(__file__).parents[2] / "examples" / "service" / "app.py"


def answers(client):
    """Whether anybody is there."""
    try:
        return client.get("/").status_code == 200
    except httpx.TransportError:
        return False


@contextmanager
def serving(store):
    """The service in a process of its own: that process, and a client of it."""
    port = free_port()
    command = [sys.executable, str(APP), "--port", str(port)]
    environ = {**os.environ, "ASYNCFLOW_STORE": str(store)}
    with (
        subprocess.Popen(command, env=environ) as server,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=SECONDS) as client,
    ):
        try:
            wait_until(lambda: answers(client), "the service answers")
            yield server, client
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(SECONDS)


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """A client of a service that is running, the same for all tests of this file."""
    with serving(tmp_path_factory.mktemp("service") / "store") as (_, client):
        yield client


def start(client, **parameters):
    """Start a run; its URL."""
    answer = client.post("/runs", json=parameters)
    assert answer.status_code == 201, answer.text
    return answer.headers["location"]


def state(client, run):
    """How the run stands."""
    return client.get(run).json()


def ended(client, run):
    """How it stands when it has ended."""

    def look():
        found = state(client, run)
        return found if found["status"] != "running" else None

    return wait_until(look, "the run ends")


def events_of(client, run, since=0, most=10**9):
    """What the stream of events sends, as (id, event)."""
    found = []
    headers = {"Last-Event-ID": str(since)} if since else {}
    with client.stream("GET", f"{run}/events", headers=headers) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        number = 0
        for line in answer.iter_lines():
            if line == "event: end":
                break
            if line.startswith("id: "):
                number = int(line[4:])
            elif line.startswith("data: "):
                found.append((number, json.loads(line[6:])))
                if len(found) == most:
                    break
    return found


def test_a_run_is_started_and_looked_at_over_http(service):
    """POST starts it, GET tells how it stands and in the end what it found."""
    run = start(service, package="json", top=2)
    found = ended(service, run)
    assert found["status"] == "succeeded"
    assert found["package"] == "json"
    assert len(found["longest"]) == 2
    assert found["id"] in [each["id"] for each in service.get("/runs").json()]


def test_the_stream_has_every_event_of_the_run(service):
    """From the first to the last, in order and without gaps, while the run goes on."""
    run = start(service, package="json", pause=0.05)
    events = events_of(service, run)
    assert [number for number, _ in events] == list(range(1, len(events) + 1))
    assert events[0][1]["type"] == "RunStarted"
    assert events[-1][1]["type"] == "RunSucceeded"
    assert any("functions" in event.get("line", "") for _, event in events)


def test_a_stream_that_was_broken_off_goes_on_behind_the_last_event_seen(service):
    """What both connections got, put together, is the whole."""
    run = start(service, package="json", pause=0.05)
    first = events_of(service, run, most=7)
    rest = events_of(service, run, since=first[-1][0])
    assert [number for number, _ in first + rest] == list(range(1, len(first + rest) + 1))
    assert rest[-1][1]["type"] == "RunSucceeded"


def test_delete_cancels_a_run(service):
    """The run is cancelled, and its stream ends with that."""
    run = start(service, package="json", pause=60)
    assert service.delete(run).status_code == 202
    assert ended(service, run)["status"] == "cancelled"
    assert events_of(service, run)[-1][1]["type"] == "RunCancelled"
    wait_until(lambda: service.delete(run).status_code == 409, "there is nothing left to cancel")


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"[]", "JSON object"),
        (b'{"top": "many"}', "top"),
        (b'{"nothing": 1}', "nothing"),
        (b"[" * 9_000, "not JSON"),
        (b'{"pause": -1}', "pause"),
        (b'{"pause": "nan"}', "pause"),
        (b'{"pause": NaN}', "pause"),
        (b'{"pause": true}', "pause"),
        (b'{"top": 100000}', "top"),
        (b'{"top": %s}' % (b"1" * 5000), "not JSON"),
        (b'{"package": "evil.package"}', "package is to be one of"),
        (b'{"package": ["json"]}', "package is to be one of"),
        (b'{"tags": "one"}', "tags"),
        (b'{"tags": ["of the caller"]}', "tags"),
        (b'{"tags": ["1", "2", "3", "4", "5", "6"]}', "tags"),
        (b'{"\\ud800": 1}', "parameter"),
    ],
)
def test_a_wrong_request_is_told_what_is_wrong(service, body, told):
    """Status 400, and an error that names it."""
    before = service.get("/runs").json()
    answer = service.post("/runs", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert told in answer.json()["error"]
    assert service.get("/runs").json() == before


STRANGERS = [
    {"Host": "evil.example"},
    {"Host": ""},
    {"Host": "localhost.evil.example"},
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://127.0.0.1:1"},
]


@pytest.mark.parametrize("headers", STRANGERS, ids=str)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_page_of_another_origin_is_refused(service, method, headers):
    """Whether it asks for another name's page, or is one itself: it starts and reads nothing."""
    answer = service.request(method, "/runs", json={"package": "json"}, headers=headers)
    assert answer.status_code == 403
    assert "this service" in answer.json()["error"]


def test_the_services_own_page_may_use_it(service):
    """Its origin is the name by which it was reached."""
    origin = {"Origin": str(service.base_url).rstrip("/")}
    answer = service.post("/runs", json={"package": "json", "tags": ["mine"]}, headers=origin)
    assert answer.status_code == 201
    ended(service, answer.headers["location"])


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_only_json_is_taken(service, kind):
    """What a form of any page can send is not."""
    headers = {"Content-Type": kind}
    answer = service.post("/runs", content=b'{"package": "json"}', headers=headers)
    assert answer.status_code == 415
    assert "application/json" in answer.json()["error"]


@pytest.mark.parametrize("declared", [True, False], ids=["length", "chunked"])
def test_a_body_beyond_the_bound_is_not_read(service, declared):
    """Nor does it have to say how long it is."""
    body = b'{"package": "' + b"x" * 20_000 + b'"}'
    content = body if declared else iter([body[:10_000], body[10_000:]])
    headers = {"Content-Type": "application/json"}
    answer = service.post("/runs", content=content, headers=headers)
    assert answer.status_code == 413
    assert "10000 bytes" in answer.json()["error"]


def test_only_so_many_runs_go_on_at_once(service):
    """The next one is told to come later, and may when one has ended."""
    runs = [start(service, package="json", pause=60) for _ in range(20)]
    answer = service.post("/runs", json={"package": "json"})
    assert answer.status_code == 429
    assert "try again later" in answer.json()["error"]
    for run in runs:
        service.delete(run)
    for run in runs:
        ended(service, run)
    wait_until(
        lambda: service.post("/runs", json={"package": "json"}).status_code == 201, "room for a run"
    )


def test_a_run_that_is_not_there_is_a_404(service):
    """The error names it."""
    ended(service, start(service, package="json"))
    answer = service.get("/runs/17")
    assert answer.status_code == 404
    assert "17" in answer.json()["error"]
    assert service.get(f"/runs/{'1' * 300}").status_code == 404


@pytest.mark.parametrize("seen", ["abc", "1.5", "-5", "9" * 5000])
def test_a_place_in_the_stream_that_cannot_be_is_refused(service, seen):
    """Before anything of the stream is sent."""
    run = start(service, package="json")
    answer = service.get(f"{run}/events", headers={"Last-Event-ID": seen})
    assert answer.status_code == 400
    assert seen[:40] in answer.json()["error"]
    ended(service, run)


def test_shutting_down_cancels_what_runs_and_leaves_nothing(store):
    """SIGTERM while a run is watched: the journal says cancelled, and no process is left."""
    with serving(store) as (server, client):
        run = start(client, package="json", pause=60)
        with client.stream("GET", f"{run}/events") as stream:
            next(stream.iter_lines())
            below = psutil.Process(server.pid).children(recursive=True)
            server.send_signal(signal.SIGTERM)
            assert server.wait(SECONDS) in {0, -signal.SIGTERM}
    looked = Run(f"LongestFunctions/{run.rpartition('/')[2]}")
    assert looked.status is Status.CANCELLED
    assert below
    wait_until(lambda: not any(map(is_alive, below)), "the workers are gone")


def is_alive(process):
    """Whether a process still does anything."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


# --- in a browser -----------------------------------------------------------------------------


@pytest.fixture
def browser(tmp_path):
    """A browser with an empty profile."""
    with chromium(tmp_path) as browser:
        yield browser


def test_a_browser_watches_a_run_and_cancels_another(service, browser):
    """The page shows lines as they come, what was found, and that a run was cancelled."""
    browser.open(service.base_url)
    browser.run("document.forms[0].package.value = 'json'")
    browser.click("form button:not([type])")
    wait_until(lambda: browser.text("status") == "succeeded", "the run ends in the page")
    assert "json has" in browser.text("log")
    assert "RunSucceeded" in browser.text("log")
    assert "lines" in browser.text("longest")

    browser.run("document.forms[0].pause.value = 60")
    browser.click("form button:not([type])")
    wait_until(lambda: "json has" in browser.text("log"), "the next run has begun")
    browser.click("#cancel")
    wait_until(lambda: browser.text("status") == "cancelled", "it is cancelled in the page")
