"""The log as JSON."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from asyncflow.cli.command_table import invoke
from asyncflow.cli.json_log import JsonLog
from asyncflow.events import (
    RunCancelled,
    RunFailed,
    RunStarted,
    TaskFailed,
    TaskLogged,
    TaskSucceeded,
    event_types,
)
from tests.support.command_line import asyncflow

TIME = datetime(2026, 11, 23, tzinfo=UTC)
RUN: dict[str, Any] = {"flow": "F", "run_id": "17", "seq": 1, "time": TIME}
TASK: dict[str, Any] = {**RUN, "step": "start", "task_id": "1", "attempt": 0}
FLOW = """
import sys
from asyncflow import FlowSpec, step

class Told(FlowSpec):
    @step
    def start(self):
        print("a line")
        print("no end", end="", file=sys.stderr)
        self.next(self.end)

    @step
    def end(self):
        raise ValueError("for good")
"""


def told(*events):
    """The objects that the log has for these events."""
    return [json.loads(line) for line in JsonLog().render(events).splitlines()]


def printed(line, end="\n", stream="stdout"):
    """An event of output."""
    return TaskLogged(**TASK, stream=stream, line=line, end=end)


def test_each_event_is_a_line_with_the_same_first_fields():
    """Whatever happened: when, how bad, what, and in words."""
    more: dict[Any, dict[str, Any]] = {
        RunStarted: {"graph": {}},
        TaskLogged: {"stream": "stdout", "line": ""},
    }
    for kind in event_types():
        about = TASK if "step" in kind.__dataclass_fields__ and kind is not RunFailed else RUN
        (entry,) = told(kind(**about, **more.get(kind, {})))
        assert list(entry)[:7] == ["time", "level", "event", "message", "flow", "run", "seq"]
        assert entry["time"] == "2026-11-23T00:00:00.000000+00:00"
        assert entry["event"] == kind.__name__
        assert entry["message"] or kind is TaskLogged


@pytest.mark.parametrize(
    ("event", "level"),
    [
        (printed("x"), "info"),
        (TaskFailed(**TASK, will_retry=True), "warning"),
        (TaskFailed(**TASK, caught=True), "warning"),
        (TaskFailed(**TASK), "error"),
        (RunFailed(**RUN), "error"),
        (RunCancelled(**RUN), "warning"),
    ],
)
def test_the_level_says_how_bad_it_is(event, level):
    """What is tried again or caught is no error."""
    assert told(event)[0]["level"] == level


def test_a_line_that_was_printed_in_pieces_is_told_once():
    """With its last piece, or when its task ends; the streams are kept apart."""
    entries = told(
        printed("50 %\r", ""),
        printed("not ended", "", "stderr"),
        printed("100 %"),
        TaskSucceeded(**TASK, seconds=0.0),
    )
    assert [(each["event"], each.get("stream"), each["message"]) for each in entries] == [
        ("TaskLogged", "stdout", "100 %"),
        ("TaskLogged", "stderr", "not ended"),
        ("TaskSucceeded", None, "task succeeded"),
    ]
    assert entries[-1]["seconds"] == 0.0


def test_the_command_line_writes_nothing_but_json(store, tmp_path):
    """The failure, and how to go on, are in the log; `--json` puts it on stderr."""
    (tmp_path / "told.py").write_text(FLOW)
    said = asyncflow("run", tmp_path / "told.py", "--log-json", "--json")
    assert said.status == 1
    entries = [json.loads(line) for line in said.stderr.splitlines()]
    lines = [each["message"] for each in entries if each["event"] == "TaskLogged"]
    assert lines == ["a line", "no end"]
    failed, last = entries[-2:]
    assert (failed["event"], failed["exception_type"]) == ("RunFailed", "ValueError")
    assert 'raise ValueError("for good")' in failed["traceback"]
    assert last["event"] == "Note"
    result = json.loads(said.stdout)
    assert result["resume"] in last["message"]


def test_another_form_of_the_log_at_the_same_time_is_refused(store, tmp_path, capsys):
    """There is one log."""
    (tmp_path / "told.py").write_text(FLOW)
    assert invoke(["run", str(tmp_path / "told.py"), "--log-json", "--quiet"]) == 2
    assert "leave --log and --quiet out" in capsys.readouterr().err
    assert not store.exists()
