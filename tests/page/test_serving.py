"""`asyncflow ui`, as people start it."""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import contextmanager

import httpx
import pytest

from asyncflow import Run
from tests.support.browser import SECONDS, wait_until
from tests.support.page_stores import begin

ASYNCFLOW = [sys.executable, "-m", "asyncflow"]
FLOW = """
import os
from asyncflow import FlowSpec, Parameter, step
class Mended(FlowSpec):
    n = Parameter("n", default=1)
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
        assert [(each["name"], each["value"]) for each in form["parameters"]] == [("n", "1")]

        (tmp_path / "mended").touch()
        again = client.post(f"{run}/resume", json={}).json()["run"]
        wait_until(lambda: Run(again, store=store).successful, "the resumed run succeeds")
        assert Run(again, store=store).origin_run_id

        started = client.post("api/flows/Mended/run", json={"parameters": {"n": "9"}}).json()["run"]
        wait_until(lambda: Run(started, store=store).finished, "the new run ends")
        assert Run(started, store=store)["start"].task.data.n == 9

        for given in ({"n": "many"}, {"store": "elsewhere"}, {"n": "1", "tag": "x"}):
            answer = client.post("api/flows/Mended/run", json={"parameters": given})
            assert answer.status_code in {400, 409}
            assert answer.json()["error"]["message"]
