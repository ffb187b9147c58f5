"""What stands on the screen while a run goes on; a small terminal of our own plays the screen."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from asyncflow.cli.nonblocking_output import NonblockingOutput
from asyncflow.cli.progress_view import BarsView, LogView, QuietView, is_terminal, wants_colour
from asyncflow.events import RunStarted, RunSucceeded, TaskLogged, TaskStarted, TaskSucceeded
from asyncflow.flow.graph import Graph
from asyncflow.flow.node import Node

if TYPE_CHECKING:
    from pathlib import Path

RUN: dict[str, Any] = {
    "flow": "F",
    "run_id": "17",
    "seq": 1,
    "time": datetime(2026, 11, 23, tzinfo=UTC),
}
TASK: dict[str, Any] = {**RUN, "step": "start", "task_id": "1", "attempt": 0, "pid": 99}
STARTED = RunStarted(**RUN, graph=Graph("F", [Node("start", ("end",)), Node("end")]).to_data())


class Screen:
    """Knows as much of a terminal as the view uses: lines, going up, erasing below, colours."""

    def __init__(self) -> None:
        self.lines = [""]
        self._row = 0

    def feed(self, text: str) -> None:
        for piece in re.findall(r"\x1b\[[0-9;]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", text):
            if piece == "\n":
                self._row += 1
                if self._row == len(self.lines):
                    self.lines.append("")
            elif piece.endswith("A") and piece.startswith("\x1b"):
                self._row -= int(piece[2:-1])
            elif piece == "\x1b[J":
                del self.lines[self._row :]
                self.lines.append("")
            elif not piece.startswith(("\x1b", "\r")):
                self.lines[self._row] += piece


@pytest.fixture
def log(tmp_path: Path):
    """A file that takes the place of the terminal, and how to read it."""
    path = tmp_path / "log"
    with path.open("wb") as file:
        yield NonblockingOutput(file.fileno()), path


def screen_of(path: Path) -> list[str]:
    """What the screen shows after all that was written."""
    screen = Screen()
    screen.feed(path.read_bytes().decode())
    return screen.lines


def logged(line: str) -> TaskLogged:
    """A line that a task has printed."""
    return TaskLogged(**TASK, stream="stdout", line=line)


async def test_bars_stay_below_the_log(log) -> None:
    """Lines of the log go above the bars, which are always last and there once."""
    output, path = log
    view = BarsView(output, colour=False)
    await view.show([STARTED, TaskStarted(**TASK)])
    await view.tick()
    await view.show([logged("one")])
    await view.show([logged("two")])
    await view.tick()
    lines = screen_of(path)
    assert [line.rsplit(" ", 1)[-1] for line in lines[2:4]] == ["one", "two"]
    assert lines[4].startswith("start")
    assert lines[5].startswith("end")
    assert sum("0/1" in line for line in lines) == 2


async def test_bars_leave_nothing_behind(log) -> None:
    """When the run is over, the screen shows the log and nothing else."""
    output, path = log
    view = BarsView(output, colour=True)
    await view.show([STARTED, TaskStarted(**TASK)])
    await view.tick()
    await view.tick()
    await view.show([TaskSucceeded(**TASK), RunSucceeded(**RUN)])
    await view.close()
    lines = screen_of(path)
    assert [line[24:] for line in lines[:-1]] == [
        "Workflow starting (run-id 17):",
        "[17/start/1 (pid 99)] Task is starting.",
        "[17/start/1 (pid 99)] Task finished successfully.",
        "Done!",
    ]
    assert lines[-1] == ""


async def test_note_goes_above_the_bars(log) -> None:
    """A note, such as that the run is being stopped, does not break the bars."""
    output, path = log
    view = BarsView(output, colour=False)
    await view.show([STARTED])
    await view.tick()
    view.note("stopping\n")
    await view.tick()
    assert screen_of(path)[1] == "stopping"
    assert sum("0/1" in line for line in screen_of(path)) == 2


async def test_a_warning_is_lines_above_the_bars_and_after_them(log) -> None:
    """It has a time of its own, a traceback its lines, and one that comes last is shown as well."""
    output, path = log
    view = BarsView(output, colour=False)
    await view.show([STARTED])
    await view.tick()
    view.warn(STARTED.time, "a callback raised (callback: tell)\nE: no\x1b[2J")
    await view.tick()
    await view.close()
    view.warn(STARTED.time, "late")
    lines = screen_of(path)[1:]
    assert all(re.match(r"\d{4}-\d\d-\d\d ", line) for line in lines if line)
    said = [line.split(" ", 2)[2] for line in lines if line]
    assert said == ["Warning: a callback raised (callback: tell)", "E: no\\x1b[2J", "Warning: late"]


async def test_a_warning_of_a_plain_log_is_a_note_and_quiet_has_none(log) -> None:
    """It is no part of the log, and no failure."""
    output, path = log
    QuietView(output, output).warn(STARTED.time, "something")
    assert path.read_text() == ""
    LogView(output, output).warn(STARTED.time, "something")
    assert path.read_text().endswith(" Warning: something\n")


async def test_plain_log_has_no_bars(log) -> None:
    """Where nobody looks at a screen there is the log and no escape sequence."""
    output, path = log
    view = LogView(output, output)
    await view.show([STARTED, logged("one")])
    await view.close()
    assert "\x1b" not in path.read_text()
    assert len(path.read_text().splitlines()) == 2


async def test_quiet_shows_the_last_line(log) -> None:
    """Quiet, a run that succeeded is one line."""
    output, path = log
    view = QuietView(output, output)
    await view.show([STARTED, logged("one")])
    await view.show([RunSucceeded(**RUN)])
    await view.close()
    assert path.read_text().endswith(" Done!\n")
    assert len(path.read_text().splitlines()) == 1


def test_file_is_no_terminal(tmp_path: Path) -> None:
    """Bars and colours are for terminals."""
    with (tmp_path / "file").open("wb") as file:
        assert not is_terminal(file.fileno())
        assert not wants_colour(file.fileno())


def test_dumb_terminal_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal that cannot move its cursor gets plain lines, and NO_COLOR is heeded."""
    monkeypatch.setattr("os.isatty", lambda descriptor: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert (is_terminal(1), wants_colour(1)) == (True, True)
    monkeypatch.setenv("NO_COLOR", "1")
    assert (is_terminal(1), wants_colour(1)) == (True, False)
    monkeypatch.setenv("TERM", "dumb")
    assert (is_terminal(1), wants_colour(1)) == (False, False)
