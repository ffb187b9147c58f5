"""The web service among the examples, over real HTTP. The page that it mounts has its own tests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import psutil
import pytest

from asyncflow import Run
from asyncflow.values import Status
from tests.support.browser import SECONDS, free_port, wait_until

APP = Path(__file__).parents[2] / "examples" / "service" / "app.py"
START = "/api/flows/LongestFunctions/run"


def answers(client):
    """Whether anybody is there."""
    try:
        return client.get("/api/info").status_code == 200
    except httpx.TransportError:
        return False


@contextmanager
def serving(store):
    """The service in a process of its own: that process, and a client of it that may act."""
    port = free_port()
    command = [sys.executable, str(APP), "--port", str(port)]
    environ = {**os.environ, "ASYNCFLOW_STORE": str(store)}
    with (
        subprocess.Popen(command, env=environ) as server,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=SECONDS) as client,
    ):
        try:
            wait_until(lambda: answers(client), "the service answers")
            token = client.get("/api/info").json()["action_token"]
            client.headers["X-Asyncflow-Token"] = token
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
    """Start a run; its pathspec."""
    given = {name: str(value) for name, value in parameters.items()}
    answer = client.post(START, json={"parameters": given})
    assert answer.status_code == 200, answer.text
    return answer.json()["run"]


def status_of(client, run):
    """How the run stands."""
    return client.get(f"/api/runs/{run}").json()["run"]["status"]


def ended(client, run):
    """Its status when it has ended."""

    def look():
        status = status_of(client, run)
        return status if status != "running" else None

    return wait_until(look, "the run ends")


def test_a_run_is_started_and_its_result_answered(service):
    """By the page's form; what it has found is the service's own answer."""
    assert service.get("/longest/json").status_code == 404
    assert ended(service, start(service, package="json", top=2)) == "succeeded"
    assert len(service.get("/longest/json").json()["longest"]) == 2
    assert service.get("/longest/../x").status_code == 404


def test_the_form_knows_the_parameters(service):
    """With their types and defaults, because the application has given the class."""
    form = service.get("/api/flows/LongestFunctions/form").json()
    assert form["known"]
    assert {each["name"]: each["default"] for each in form["parameters"]} == {
        "package": "asyncio",
        "top": "5",
        "pause": "0.0",
    }


@pytest.mark.parametrize(
    ("parameters", "said"),
    [({"top": "many"}, "top"), ({"nothing": "1"}, "nothing"), ({"pause": "nix"}, "pause")],
)
def test_a_wrong_parameter_starts_nothing(service, parameters, said):
    """The answer names it."""
    before = len(service.get("/api/runs").json()["runs"])
    answer = service.post(START, json={"parameters": parameters})
    assert answer.status_code == 400
    assert said in answer.json()["error"]["message"]
    assert len(service.get("/api/runs").json()["runs"]) == before


def test_a_package_that_a_caller_names_is_not_imported(service):
    """The flow refuses all but a few: `find_spec` imports what is around a package."""
    run = start(service, package="evil.package")
    assert ended(service, run) == "failed"
    failure = service.get(f"/api/runs/{run}").json()["run"]["failure"]
    assert "package is to be one of" in failure["message"]


def test_another_flow_cannot_be_started(service):
    """Nor can a run of it be resumed."""
    answer = service.post("/api/flows/Other/run", json={})
    assert answer.status_code == 409
    assert "Other" in answer.json()["error"]["message"]


def test_a_run_is_cancelled_and_resumed(service):
    """By the page; the plan says what is not run again."""
    run = start(service, package="json", pause=60)
    wait_until(lambda: service.get(f"/api/runs/{run}").json()["run"]["running"], "a task runs")
    assert service.post(f"/api/runs/{run}/cancel", json={}).json() == {"status": "cancelled"}
    plan = service.post("/api/plan", json={"run": run}).json()["steps"]
    assert plan == service.get("/api/plan", params={"run": run}).json()["steps"]
    assert plan[0]["step"] == "start"
    again = service.post(f"/api/runs/{run}/resume", json={}).json()["run"]
    assert service.get(f"/api/runs/{again}").json()["run"]["origin_run_id"] in run
    service.post(f"/api/runs/{again}/cancel", json={})


@pytest.mark.parametrize(
    "headers", [{"Host": "evil.example"}, {"Origin": "http://evil.example"}, {"Origin": "null"}]
)
def test_a_page_of_another_origin_is_refused(service, headers):
    """It starts nothing."""
    answer = service.post(START, json={}, headers=headers)
    assert answer.status_code == 403


def test_a_body_that_is_too_long_is_refused_unread(service):
    """Whatever the path: the length that it announces is enough."""
    with suppress(httpx.WriteError):  # the service has hung up
        answer = service.post("/nowhere", content=b"x" * (8 << 20))
        assert answer.status_code == 413


def test_the_page_is_where_the_service_begins(service):
    """And the service's own path beside it."""
    assert "text/html" in service.get("/").headers["content-type"]
    assert service.get("/longest/never").json()["error"] == "no run has looked at never"


def test_shutting_down_cancels_what_runs_and_leaves_nothing(store):
    """SIGTERM while a run is watched: the journal says cancelled, and no process is left."""
    with serving(store) as (server, client):
        run = start(client, package="json", pause=60)
        with client.stream("GET", "/api/watch", params={"run": run}) as stream:
            next(stream.iter_lines())
            below = psutil.Process(server.pid).children(recursive=True)
            server.send_signal(signal.SIGTERM)
            assert server.wait(SECONDS) in {0, -signal.SIGTERM}
    assert Run(run).status is Status.CANCELLED
    assert below
    wait_until(lambda: not any(map(is_alive, below)), "the workers are gone")


def is_alive(process):
    """Whether a process still does anything."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
