"""What every test may ask for."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

# In the background of a script Ctrl-C is ignored, and under nohup the end of the terminal: what a
# test starts would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """The event loop under all tests; session-wide, so that a fixture of any scope may be async."""
    return "asyncio"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this test's store will be, for this process and its children; nothing is there yet."""
    directory = tmp_path / "store"
    monkeypatch.setenv("ASYNCFLOW_STORE", str(directory))
    return directory
