"""The fixtures that pytest finds wherever asyncflow is installed."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
TESTS = """
import pytest
from asyncflow import Flow, FlowSpec, retry, step

fails = []

class Small(FlowSpec):
    @step
    def start(self):
        self.value = 1
        self.next(self.train)

    @retry(times=1, minutes_between_retries=5)
    @step
    def train(self):
        if fails:
            raise fails.pop()
        self.value += 1
        self.next(self.end)

    @step
    def end(self):
        pass

def test_step(run_step):
    assert run_step(Small, "train", artifacts={"value": 5}).value == 6

def test_flow(run_flow, store):
    run = run_flow(Small)
    assert (run.data.value, run.store) == (2, store)
    assert Flow("Small").latest_run == run

def test_store(run_flow):
    run = run_flow(Small)
    assert len(list(Flow("Small"))) == 1

def test_clock(run_flow, clock):
    fails.append(OSError())
    assert run_flow(Small).successful
    assert clock.waits == [300.0]

def test_crash(run_flow, crash_after):
    crash_after("start")
    crashed = run_flow(Small)
    assert crashed.status == "interrupted"
    run = run_flow(Small, resume=crashed)
    assert (run.origin_run_id, run.data.value) == (crashed.id, 2)

def test_failure(run_flow):
    fails.extend([OSError("first"), ValueError("no such luck")])
    run_flow(Small)

class TestOwn:
    @pytest.fixture
    def clock(self):
        return "mine"

    def test_a_fixture_of_the_same_name_wins(self, run_flow, clock):
        assert clock == "mine"
        assert run_flow(Small).successful
"""


def pytest_on(folder, text, *arguments):
    """Run pytest on a test file, as a user's project does."""
    (folder / "test_small.py").write_text(text)
    command = [sys.executable, "-m", "pytest", "-p", "asyncflow.testing.pytest_plugin"]
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_ADDOPTS": ""}
    return subprocess.run(
        [*command, "-p", "no:cacheprovider", *arguments],
        check=False,
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
        timeout=180,
    )


def test_the_fixtures_do_what_they_say(tmp_path):
    """A failure shows the line of the step."""
    text = TESTS.replace("minutes_between_retries=5", "minutes_between_retries=0.0001", 0)
    done = pytest_on(tmp_path, text, "-q", "--deselect", "test_small.py::test_failure")
    assert "6 passed" in done.stdout, done.stdout
    failing = text.replace("times=1, minutes_between_retries=5", "times=0")
    done = pytest_on(tmp_path, failing, "-q", "-k", "test_failure")
    assert "1 failed" in done.stdout
    assert ">           raise fails.pop()" in done.stdout
    assert "no such luck" in done.stdout


def test_pytest_finds_the_plugin_and_imports_little():
    """Its entry point names it; nothing of asyncflow is loaded for tests that do not want it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {
        "asyncflow.testing.pytest_plugin": "asyncflow.testing.pytest_plugin"
    }
    program = "import sys; import asyncflow.testing.pytest_plugin; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    heavy = {"msgpack", "blake3", "asyncflow.engine", "asyncflow.store", "asyncflow.client"}
    assert set(done.stdout.split()) & heavy == set()
