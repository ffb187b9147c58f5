"""Fixtures for tests of flows; pytest finds them wherever asyncflow is installed.

Nothing of asyncflow is imported before a test asks for a fixture.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from asyncflow.client import Run
    from asyncflow.testing.one_step import StepResult
    from asyncflow.testing.retry_clock import RetryClock


class _Crash:
    """Where the next run of a test is to break off."""

    def __init__(self) -> None:
        self.step = ""

    def __call__(self, step: str) -> None:
        """Have the next `run_flow` of this test break off once a task of the step has ended.

        As if the program had been killed: the run is interrupted, and `run_flow` returns it.
        """
        self.step = step

    def take(self) -> str:
        """The step, once."""
        step, self.step = self.step, ""
        return step


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of this test's store, also for what it starts; nothing is there yet."""
    directory = tmp_path / "store"
    monkeypatch.setenv("ASYNCFLOW_STORE", str(directory))
    return directory


@pytest.fixture
def clock() -> RetryClock:
    """Skips the waits before retries in the runs of this test."""
    from asyncflow.testing.retry_clock import RetryClock

    return RetryClock()


@pytest.fixture
def crash_after() -> Callable[[str], None]:
    """`crash_after("train")` has the next `run_flow` break off after that step."""
    return _Crash()


@pytest.fixture
def run_step() -> Callable[..., StepResult]:
    """`run_step(Flow, "train", artifacts={…})`, see `asyncflow.testing.run_step`."""
    from asyncflow.testing.one_step import run_step

    return run_step


@pytest.fixture
def run_flow(request: pytest.FixtureRequest, store: Path) -> Callable[..., Run]:
    """`run_flow(Flow, alpha=1)`, see `asyncflow.testing.run_flow`; in this test's own store."""
    from asyncflow.testing.whole_flow import RunAs, carry_out

    def asked(name: str) -> Any:
        return request.getfixturevalue(name) if name in request.fixturenames else None

    clock, crash = asked("clock"), asked("crash_after")

    def run(
        flow: Any,
        /,
        *,
        in_process: bool = True,
        tags: Any = (),
        resume: Run | None = None,
        **parameters: Any,
    ) -> Run:
        how = RunAs(
            in_process=in_process,
            store=store,
            tags=tags,
            resume=resume,
            clock=clock if hasattr(clock, "make_loop") else None,
            crash_after=crash.take() if isinstance(crash, _Crash) else "",
        )
        return carry_out(flow, how, parameters)

    return run
