"""Progress bars on a terminal: what a person sees there, while a run goes on and after."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import textwrap
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from asyncflow.cli import progress_bars
from asyncflow.client.step_counts import StepTally

FLOW = """
    import time
    from pathlib import Path
    from asyncflow import FlowSpec, current, retry, step

    def wait_for(name):
        while not Path(name).exists():
            time.sleep(0.01)

    class BarFlow(FlowSpec):
        @step
        def start(self):
            self.items = range(12)
            self.next(self.work, foreach="items")

        @retry(times=1, minutes_between_retries=0)
        @step
        def work(self):
            if self.input == 2 and current.retry_count == 0:
                raise ValueError("once")
            print("half of", end="", flush=True)
            if self.input > 5:
                wait_for("running")
            print(" a line")
            self.next(self.join)

        @step
        def join(self, inputs):
            wait_for("done")
            self.next(self.end)

        @step
        def end(self):
            pass
"""

SEQUENCE = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])|\r|\n|.", re.DOTALL)


class Screen:
    """As much of a terminal as bars need: it scrolls for ever, and knows how to go up and erase."""

    def __init__(self):
        self.rows = {}
        self.row = self.column = 0

    def feed(self, text):
        """Show some text."""
        for match in SEQUENCE.finditer(text):
            if match[2]:
                self._control(match[2], match[1])
            elif match[0] == "\r":
                self.column = 0
            elif match[0] == "\n":
                self.row += 1
            else:
                self.rows.setdefault(self.row, {})[self.column] = match[0]
                self.column += 1

    def _control(self, letter, numbers):
        if letter == "A":
            self.row -= int(numbers)
        elif letter == "J":
            self.rows = {row: cells for row, cells in self.rows.items() if row < self.row}
        elif letter != "m":
            pytest.fail(f"a sequence that bars do not need: {letter!r}")

    @property
    def lines(self):
        """What stands there, without colours."""
        return ["".join(self.rows.get(row, {}).values()) for row in range(self.row + 1)]


def watch(folder, *options, columns):
    """Run the flow on a terminal; what stood on the screen after each piece, without colours."""
    (folder / "flow.py").write_text(textwrap.dedent(FLOW))
    sizes = {"COLUMNS", "LINES"}  # would come before what the terminal says of itself
    environ = {name: value for name, value in os.environ.items() if name not in sizes}
    leader, follower = pty.openpty()
    fcntl.ioctl(leader, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "asyncflow", "run", "flow.py", "--workers", "2", *options],
        cwd=folder,
        stdin=follower,
        stdout=follower,
        stderr=follower,
        start_new_session=True,
        env={**environ, "TERM": "xterm-256color"},
    )
    os.close(follower)
    seen, screen, deadline = b"", Screen(), time.monotonic() + 60
    # The flow's tasks wait until the screen has shown that they are at work, and that all are done.
    busy = rb"work.* [56]/12" + (rb".*2 running.*1 retried" if columns == 100 else b"")
    wanted = {"running": re.compile(busy), "done": re.compile(rb"work.* 12/12")}
    while piece := read(leader):
        seen += piece
        for name in [name for name, words in wanted.items() if words.search(seen)]:
            del wanted[name]
            (folder / name).touch()
        if wanted and time.monotonic() > deadline:
            process.kill()
    os.close(leader)
    assert process.wait(timeout=180) == 0
    shown: list[list[str]] = []
    for write in seen.decode().split("\r\x1b["):  # each write of bars begins so
        screen.feed(f"\r\x1b[{write}" if shown else write)
        shown.append(screen.lines)
    return shown


def read(descriptor):
    """What comes next; nothing at the end, which a terminal tells with an error."""
    try:
        return os.read(descriptor, 1 << 16)
    except OSError:
        return b""


@pytest.mark.parametrize("columns", [100, 40])
def test_bars_count_up_under_the_log_and_are_gone_at_the_end(tmp_path, store, columns):
    """They are the last lines on the screen; after the run only the whole log is there."""
    shown = watch(tmp_path, "--log", "full", columns=columns)
    bars = [line for lines in shown for line in lines if "━" in line]
    counts = [int(found[1]) for bar in bars if (found := re.search(r"work.* (\d+)/12", bar))]
    assert counts == sorted(counts)
    assert counts[-1] == 12
    assert {5, 6} & set(counts)
    assert max(map(len, bars)) < columns
    if columns == 100:
        assert any("2 running" in bar and "1 retried" in bar for bar in bars)
    for lines in shown:  # nothing but the line with the time stands below the last bar
        at = [number for number, line in enumerate(lines) if "━" in line]
        assert not at or all(re.fullmatch(r"(0:00:\d\d)?\s*", line) for line in lines[at[-1] + 1 :])
    final = shown[-1]
    assert not [line for line in final if "━" in line or re.match(r"\d:\d\d:\d\d", line)]
    assert sum(line.endswith("] half of a line") for line in final) == 12
    assert sum(line.endswith("] Task finished successfully.") for line in final) == 15
    assert final[-2].endswith(" Done!")
    assert final[-1] == ""


def test_a_terminal_shows_what_tasks_print_and_a_summary(tmp_path, store):
    """Not that each task begins and ends; a failure is a line, since another attempt follows."""
    final = watch(tmp_path, columns=100)[-1]
    text = "\n".join(final)
    assert sum(line.endswith("] half of a line") for line in final) == 12
    assert "Task is starting" not in text
    assert sum(line.endswith("] Task failed: ValueError: once") for line in final) == 1
    summary = [line.split() for line in final[final.index("STEP   TASKS  SECONDS") + 1 :]]
    assert [line[:2] for line in summary[:4]] == [
        ["start", "1"],
        ["work", "12"],
        ["join", "1"],
        ["end", "1"],
    ]
    assert summary[1][-3:] == ["1", "tried", "again"]
    assert "More:  asyncflow show BarFlow/" in text


ROWS = st.lists(
    st.builds(
        StepTally,
        st.text("aé名_", min_size=1, max_size=60),
        *[st.integers(0, 10**7) for _ in range(5)],
    ),
    max_size=40,
)


@given(ROWS, st.integers(10, 200), st.integers(3, 60), st.booleans(), st.floats(0, 1e6))
def test_bars_fit_on_any_screen(rows, columns, lines, colour, seconds):
    """None is as wide as the screen, and together they are not as high."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", str(columns))
        patch.setenv("LINES", str(lines))
        text = progress_bars.draw_bars(rows, seconds=seconds, colour=colour)
    assert text.endswith("\n")
    shown = re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines()
    assert max(map(cell_len, shown)) < max(columns, 21)
    assert len(shown) <= max(2, lines - 1)


@pytest.mark.parametrize("columns", [24, 40, 60, 100])
def test_counts_are_whole_however_narrow_the_screen_is(monkeypatch, columns):
    """Where room is short, remarks and bars lose theirs first; a step is never without a name."""
    monkeypatch.setenv("COLUMNS", str(columns))
    rows = [
        StepTally("start", 1, done=1),
        StepTally("train", 100_000, done=60_000, running=2, failed=3, retried=7),
    ]
    lines = progress_bars.draw_bars(rows, seconds=1, colour=False).splitlines()
    assert [line.split()[0] for line in lines] == ["start", "train", "0:00:01"]
    assert "60000/100000" in lines[1].split()
    assert ("7 retried" in lines[1]) == (columns == 100)


def test_of_many_steps_those_are_shown_that_tell_most(monkeypatch):
    """What runs, then what failed, then what ended last; the others are counted."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "10")
    rows = [StepTally(f"step{number}", 1, done=1) for number in range(20)]
    rows[3] = StepTally("running", 10, running=2, done=5)
    rows[5] = StepTally("failing", 10, done=9, failed=1)
    text = progress_bars.draw_bars(rows, seconds=3661, colour=False)
    assert [line.split()[0] for line in text.splitlines()[:-1]] == [
        "running",
        "failing",
        "step18",
        "step19",
    ]
    assert text.splitlines()[-1] == "and 16 more steps, 1:01:01"
