"""A test that hangs fails by itself, and the others go on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HANGING = """
import asyncio, threading
import pytest

def test_waits():
    threading.Event().wait()

async def test_waits_on_the_loop():
    await asyncio.Event().wait()

async def test_goes_on():
    await asyncio.sleep(0)
"""


def test_a_test_that_hangs_fails_where_it_stands_and_the_next_one_runs(tmp_path, monkeypatch):
    """Be it async or not; the event loop that async tests share is as it was."""
    conftest = (Path(__file__).parents[1] / "conftest.py").read_text()
    (tmp_path / "conftest.py").write_text(conftest)
    (tmp_path / "test_hangs.py").write_text(HANGING)
    (tmp_path / "pytest.ini").write_text("[pytest]\nanyio_mode = auto\nmarkers = slow\n")
    monkeypatch.setenv("HANGING_SECONDS", "0.2")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", tmp_path]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "2 failed, 1 passed" in done.stdout
    assert "threading.Event().wait()" in done.stdout
    assert "await asyncio.Event().wait()" in done.stdout
