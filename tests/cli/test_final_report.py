"""The last words on a run, from hand-made events."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from asyncflow.cli.final_report import Program, cancelled_text, failure_text, result_data
from asyncflow.events import RunCancelled, RunFailed, RunSucceeded
from asyncflow.values import Failure

RUN: dict[str, Any] = {
    "flow": "F",
    "run_id": "17",
    "seq": 9,
    "time": datetime(2026, 11, 23, tzinfo=UTC),
    "seconds": 1.5,
}
FAILURE = Failure(
    "train", "3", 1, "ValueError", "no good", "Traceback:\n  x\nValueError: no good\n"
)
PROGRAM = Program(file=("my flow.py",))


def test_failure_says_what_to_do_next() -> None:
    """A failure names task, attempt, traceback, and the commands for the log and the resume."""
    text = failure_text("F", "17", FAILURE, PROGRAM)
    assert "Step train failed: task F/17/train/3, attempt 1." in text
    assert "    Traceback:\n      x\n    ValueError: no good\n" in text
    assert "asyncflow logs F/17/train/3\n" in text
    assert "asyncflow resume 'my flow.py' --origin-run-id 17\n" in text


def test_failure_of_no_task_names_the_run() -> None:
    """A failure that is no task's own, such as a full disk, names the run and what happened."""
    text = failure_text("F", "17", Failure("", "", 0, "PoolError", "no workers", ""), PROGRAM)
    assert "The run F/17 failed." in text
    assert "    PoolError: no workers\n" in text
    assert "logs" not in text


def test_commands_repeat_the_store() -> None:
    """A store that was named on the command line is named in the commands that go on with it."""
    program = Program(command=("python", "flow.py"), options=("--store", "/a b"))
    assert program.resume("17") == "python flow.py resume --origin-run-id 17 --store '/a b'"
    assert program.logs("F/17/a/1") == "python flow.py logs F/17/a/1 --store '/a b'"


def test_traceback_cannot_move_the_cursor() -> None:
    """Escape sequences in an exception's text do not reach the terminal."""
    failure = Failure("a", "1", 0, "E", "", "E: \x1b[2Jgone\n")
    assert "\x1b" not in failure_text("F", "17", failure, PROGRAM)


def test_cancelled_run_can_be_resumed() -> None:
    """After a cancellation, the command that goes on is told."""
    text = cancelled_text("F", "17", PROGRAM)
    assert "F/17 was cancelled" in text
    assert "asyncflow resume 'my flow.py' --origin-run-id 17\n" in text


def test_result_of_success() -> None:
    """The JSON of a run that succeeded has ids, status and seconds, and no failure."""
    assert result_data(RunSucceeded(**RUN), PROGRAM) == {
        "flow": "F",
        "run_id": "17",
        "pathspec": "F/17",
        "status": "succeeded",
        "seconds": 1.5,
        "failure": None,
        "resume": None,
    }


def test_result_of_failure() -> None:
    """The JSON of a run that failed has the failure, part by part, and the command that resumes."""
    event = RunFailed(
        **RUN,
        step="train",
        task_id="3",
        attempt=1,
        exception_type="ValueError",
        message="no good",
        traceback="Traceback",
        item="'berlin'",
    )
    data = result_data(event, PROGRAM)
    assert data["status"] == "failed"
    assert data["resume"] == PROGRAM.resume("17")
    assert data["failure"] == {
        "step": "train",
        "task_id": "3",
        "pathspec": "F/17/train/3",
        "item": "'berlin'",
        "attempt": 1,
        "type": "ValueError",
        "message": "no good",
        "traceback": "Traceback",
    }


def test_result_of_cancellation() -> None:
    """The JSON of a cancelled run says so."""
    data = result_data(RunCancelled(**RUN, reason="SIGINT"), PROGRAM)
    assert (data["status"], data["failure"]) == ("cancelled", None)
