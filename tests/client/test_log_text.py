"""The log of a run as text: hand-made events in, lines out."""

from __future__ import annotations

import re
import time
import unicodedata
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncflow._support.terminal_text import visible, visible_line, visible_output
from asyncflow.client.log_text import HELD_CHARACTERS, LogRenderer, left_showing
from asyncflow.events import (
    RunCancelled,
    RunFailed,
    RunStarted,
    RunSucceeded,
    TaskCloned,
    TaskFailed,
    TaskLogged,
    TaskRetried,
    TaskStarted,
    TaskSucceeded,
)
from tests.support.call_counts import counted_calls

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncflow.events import Event

MOMENT = datetime(2026, 11, 23, 22, 24, 42, 987654, tzinfo=UTC)
RUN: dict[str, Any] = {"flow": "F", "run_id": "17", "seq": 1, "time": MOMENT}
TASK: dict[str, Any] = {**RUN, "step": "a", "task_id": "3", "attempt": 0, "pid": 99}
HEAD = "2026-11-23 22:24:42.987 [17/a/3 (pid 99)]"


@pytest.fixture(autouse=True)
def in_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Local time is UTC in these tests, but where one says otherwise."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def logged(line: str, end: str = "\n", *, stream: str = "stdout", task_id: str = "3") -> TaskLogged:
    """A piece of output of a task."""
    return TaskLogged(**{**TASK, "task_id": task_id}, stream=stream, line=line, end=end)


def plain(*events: Event) -> str:
    """The log of these events, as it goes to a pipe."""
    return LogRenderer().render(events)


def test_whole_run_has_the_shape_of_metaflow() -> None:
    """A run's log has Metaflow's lines: time, run/step/task, worker's process, what happened."""
    text = plain(
        RunStarted(**RUN, graph={}),
        TaskStarted(**TASK),
        logged("hello"),
        TaskSucceeded(**TASK),
        RunSucceeded(**RUN),
    )
    assert text == (
        "2026-11-23 22:24:42.987 Workflow starting (run-id 17):\n"
        f"{HEAD} Task is starting.\n"
        f"{HEAD} hello\n"
        f"{HEAD} Task finished successfully.\n"
        "2026-11-23 22:24:42.987 Done!\n"
    )


def test_a_brief_log_has_what_tasks_print_and_failures_in_a_line() -> None:
    """The traceback stands in the report at the end."""
    failure: dict[str, Any] = {
        "exception_type": "ValueError",
        "message": "no\ngood",
        "traceback": "long\n",
    }
    text = LogRenderer(brief=True).render(
        [
            RunStarted(**RUN, graph={}),
            TaskCloned(
                **{key: value for key, value in TASK.items() if key != "pid"},
                origin_run_id="16",
                origin_task_id="3",
            ),
            TaskStarted(**TASK),
            logged("hello"),
            TaskFailed(**TASK, **failure, will_retry=True),
            TaskStarted(**TASK),
            TaskFailed(**TASK, **failure, caught=True),
            TaskSucceeded(**TASK),
            RunSucceeded(**RUN),
        ]
    )
    assert text == (
        "2026-11-23 22:24:42.987 Workflow starting (run-id 17):\n"
        f"{HEAD} hello\n"
        f"{HEAD} Task failed: ValueError: no\\ngood\n"
        f"{HEAD} Task failed, and the failure is caught: ValueError: no\\ngood\n"
        "2026-11-23 22:24:42.987 Done!\n"
    )


def test_a_run_of_a_project_names_it_first() -> None:
    """As Metaflow does, without a time."""
    options = {"project": {"name": "shop", "branch_name": "test.new\x1b"}}
    text = plain(RunStarted(**RUN, graph={"options": options}))
    assert text.splitlines() == [
        r"Project: shop, Branch: test.new\x1b",
        "2026-11-23 22:24:42.987 Workflow starting (run-id 17):",
    ]


def test_times_are_local(monkeypatch: pytest.MonkeyPatch) -> None:
    """Times are shown in the local time zone, cut to milliseconds."""
    monkeypatch.setenv("TZ", "XYZ-2")
    time.tzset()
    assert plain(RunSucceeded(**RUN)) == "2026-11-24 00:24:42.987 Done!\n"


def test_each_second_has_its_own_time() -> None:
    """Events of different seconds do not share a time."""
    later = {**RUN, "time": MOMENT + timedelta(seconds=61, microseconds=-987_000)}
    text = plain(RunSucceeded(**RUN), RunSucceeded(**later))
    assert [line.split()[1] for line in text.splitlines()] == ["22:24:42.987", "22:25:43.000"]


def test_failure_shows_the_traceback() -> None:
    """A failed task shows the user's traceback line by line, then that it failed."""
    event = TaskFailed(
        **TASK, exception_type="ValueError", traceback="Traceback:\n  x\nValueError\n"
    )
    assert plain(event) == (
        f"{HEAD} Traceback:\n{HEAD}   x\n{HEAD} ValueError\n{HEAD} Task failed.\n"
    )


def test_failure_without_traceback_shows_what_happened() -> None:
    """A task whose worker died has no traceback: type and message stand in for it."""
    event = TaskFailed(**TASK, exception_type="WorkerDiedError", message="killed by SIGSEGV")
    assert f"{HEAD} WorkerDiedError: killed by SIGSEGV\n" in plain(event)


def test_second_attempt_is_called_a_retry() -> None:
    """A retry says when it comes, and that it is one."""
    again = {**TASK, "attempt": 1}
    del again["pid"]
    text = plain(TaskRetried(**again, after_seconds=5.0), TaskStarted(**again, pid=100))
    assert "[17/a/3] Task will be tried again in 5 seconds.\n" in text
    assert "[17/a/3 (pid 100)] Task is starting (retry).\n" in text


def test_a_caught_failure_says_so_and_leaves_the_traceback_to_catch() -> None:
    """Which prints it into the task's log, or not: it is shown once, or not at all."""
    printed = TaskLogged(**TASK, stream="stderr", line="a long traceback")
    of: dict[str, Any] = {"exception_type": "ValueError", "message": "no", "traceback": "a long"}
    text = plain(printed, TaskFailed(**TASK, **of, caught=True), TaskSucceeded(**TASK))
    assert text == (
        f"{HEAD} a long traceback\n"
        f"{HEAD} ValueError: no\n"
        f"{HEAD} Task failed; the failure is caught, and the flow goes on.\n"
        f"{HEAD} Task finished successfully.\n"
    )


def test_cloned_task_names_its_origin() -> None:
    """A task taken over from another run says from which."""
    cloned = {name: TASK[name] for name in TASK if name != "pid"}
    text = plain(TaskCloned(**cloned, origin_run_id="16", origin_task_id="8"))
    assert text.endswith("[17/a/3] Cloning results of a previously run task 16/a/8\n")


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (RunFailed(**RUN), "Workflow failed."),
        (RunCancelled(**RUN, reason="SIGINT"), "Workflow cancelled: SIGINT."),
        (RunCancelled(**RUN), "Workflow cancelled."),
    ],
)
def test_last_line_tells_how_it_ended(event: Event, words: str) -> None:
    """A run that did not succeed says so in its last line."""
    assert plain(event).endswith(f" {words}\n")


def test_unfinished_line_waits_for_its_end() -> None:
    """A piece of a line is not shown before the rest has come, and then in one line."""
    renderer = LogRenderer()
    assert renderer.render([logged("name: ", end="")]) == ""
    assert renderer.render([logged("Ada")]) == f"{HEAD} name: Ada\n"


def test_unfinished_lines_of_two_tasks_do_not_mix() -> None:
    """Two tasks that each print half a line get a line each."""
    text = plain(
        logged("one ", end="", task_id="1"),
        logged("two ", end="", task_id="2"),
        logged("errors ", end="", task_id="1", stream="stderr"),
        logged("uno", task_id="1"),
        logged("dos", task_id="2"),
        logged("mal", task_id="1", stream="stderr"),
    )
    assert [line.split("] ")[1] for line in text.splitlines()] == [
        "one uno",
        "two dos",
        "errors mal",
    ]


@pytest.mark.parametrize("ending", [TaskSucceeded(**TASK), TaskFailed(**TASK, message="no")])
def test_unfinished_line_is_shown_when_the_task_ends(ending: Event) -> None:
    """What a task printed last without a line end is a line of its own, before the task's end."""
    text = plain(logged("last words", end=""), ending)
    assert text.startswith(f"{HEAD} last words\n")


def test_endless_line_is_shown_in_parts() -> None:
    """A line longer than the bound is shown in several: it is never held whole."""
    piece = "x" * 65536
    renderer = LogRenderer()
    shown = "".join(renderer.render([logged(piece, end="")]) for _ in range(160))
    lines = shown.splitlines()
    assert len(lines) == 160 * 65536 // HELD_CHARACTERS
    assert {len(line) for line in lines} == {HELD_CHARACTERS + len(HEAD) + 1}


def test_progress_bar_shows_its_last_state() -> None:
    """Of a line with carriage returns, what a terminal would be left showing is the line."""
    assert plain(logged("\r 10%\r 50%\r100%")) == f"{HEAD} 100%\n"


def test_progress_bar_in_pieces_holds_its_last_state_only() -> None:
    """A bar that is drawn a hundred thousand times without a line end takes no memory."""
    renderer = LogRenderer()
    for percent in range(100_000):
        assert renderer.render([logged(f"\r{percent}", end="")]) == ""
    assert renderer.render([logged("")]) == f"{HEAD} 99999\n"


@pytest.mark.parametrize(
    ("line", "left"),
    [("a\rb", "b"), ("50%\r", "50%"), ("a\rb\r\r", "b"), ("plain", "plain"), ("\r", "")],
)
def test_left_showing(line: str, left: str) -> None:
    """A return at the very end hides nothing: nothing was written over it."""
    assert left_showing(line) == left


def test_escape_sequences_pass_to_a_pipe() -> None:
    """In a file or pipe, colours and other sequences of a task stay as they were printed."""
    assert plain(logged("\x1b[31mred\x1b[0m \x1b[2A")) == f"{HEAD} \x1b[31mred\x1b[0m \x1b[2A\n"


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("\x1b[31mred", "\x1b[31mred\x1b[0m"),
        ("up\x1b[2A \x1b[1mbold", "up\\x1b[2A \x1b[1mbold\x1b[0m"),
        ("\x1b]0;title\x07text", "\\x1b]0;title\\x07text"),
        ("bell\x07 form\x0c feed\x0b del\x7f", "bell\\x07 form\\x0c feed\\x0b del\\x7f"),
        ("a\tb", "a\tb"),
        ("größe ✓ 👩‍💻", "größe ✓ 👩‍💻"),
        ("half\x1b[", "half\\x1b["),
        ("c1\x9b2J\x85", "c1\\x9b2J\\x85"),
        ("abc\u202eexe\u2066\u200f\u2028", "abc\\u202eexe\\u2066\\u200f\\u2028"),
        ("alone \ud800", "alone \\ud800"),
        ("two\nlines", "two\\nlines"),
    ],
)
def test_a_terminal_gets_colours_and_sees_all_else_that_would_control_it(line, shown):
    """On a terminal a control character is its escape, and colours end with the line."""
    assert visible_output(line) == shown
    assert visible_line(line) == shown.replace("\x1b[0m", "").replace("\x1b", "\\x1b")


@given(st.text())
def test_nothing_that_was_made_visible_controls_a_terminal(text):
    """And what is visible stays as it is."""
    shown = visible(text)
    assert visible(shown) == shown
    controlling = {unicodedata.category(letter) for letter in shown if letter not in "\t\n"}
    assert not controlling & {"Cc", "Cs", "Zl", "Zp"}


def test_any_output_keeps_one_prefix_a_line() -> None:
    """Whatever a task prints, every line of the log begins with time and task."""
    nasty = ["\r\r", "\x1b[1A\x1b[2K", "\x1b]2;x", "a\x0bb", "\x85", "\u2028", "\x00"]
    text = LogRenderer(terminal=True).render([logged(line) for line in nasty])
    assert len(text.split("\n")) == len(nasty) + 1
    assert all(line.startswith(HEAD) for line in text.split("\n")[:-1])


def test_colours_only_when_asked_for() -> None:
    """With colours the words of a line are the same."""
    events = (RunStarted(**RUN, graph={}), TaskStarted(**TASK), logged("x"), RunFailed(**RUN))
    coloured = LogRenderer(terminal=True, colour=True).render(events)
    assert "\x1b[" in coloured
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == plain(*events)


def test_rendering_is_cheap() -> None:
    """An event costs some microseconds: fifteen calls."""
    events = [kind for _ in range(500) for kind in (TaskStarted(**TASK), TaskSucceeded(**TASK))]
    with counted_calls() as calls:
        LogRenderer().render(events)
    assert calls[0] / len(events) < 20
