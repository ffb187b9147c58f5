"""What the cell of a notebook shows of a run: bars that move, and what tasks print."""

from __future__ import annotations

import asyncio
import sys
import time
from html import escape
from typing import TYPE_CHECKING, Any, Final

from asyncflow._support import log
from asyncflow._support.notebook import shell
from asyncflow.client.log_text import LogRenderer
from asyncflow.client.step_counts import StepTally, Tally
from asyncflow.client.words import how_long
from asyncflow.events.types import ENDINGS, RunCancelled, RunFailed
from asyncflow.values import Status

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncflow.engine.run_handle import RunHandle
    from asyncflow.events.selection import Publication
    from asyncflow.events.types import Event

REDRAW_SECONDS: Final = 0.25
MOST_LINES: Final = 1000  # a page with more is slow, and is saved with the notebook
_MOST_ROWS: Final = 30


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    return hasattr(shell(), "kernel")


async def show_run(handle: RunHandle) -> None:
    """Show a run in the current cell, until its end. An error of the display is logged."""
    view = NotebookView(handle.pathspec)
    over = asyncio.Event()
    ticker = asyncio.create_task(_tick(view, over))
    try:
        async for batch in handle._news():  # noqa: SLF001 - parts of one package
            view.show(batch)
        view.close()
    except Exception as error:  # noqa: BLE001 - whatever the notebook's display raises: the run goes on
        log.warning("a run cannot be shown in its cell", run=handle.pathspec, error=repr(error))
    finally:
        over.set()
        await ticker


async def _tick(view: NotebookView, over: asyncio.Event) -> None:
    while not over.is_set():
        try:
            async with asyncio.timeout(REDRAW_SECONDS):
                await over.wait()
        except TimeoutError:
            view.draw()


class _CellLog(LogRenderer):
    """The lines that tasks print, without times and processes: a cell is narrow."""

    def _head(self, run_id: str, step: str, task_id: str, pid: int, time: int) -> str:
        del run_id, pid, time
        return f"[{step}/{task_id}] "

    def _plain(self, event: Event, body: str, *, bad: bool = False) -> str:
        del event, body, bad
        return ""  # the bars say how the run is


class NotebookView:
    """Draws the bars of one run again and again in one place, with the log below."""

    def __init__(self, pathspec: str) -> None:
        """Draw nothing yet."""
        self._pathspec = pathspec
        self._tally = Tally()
        self._renderer = _CellLog(brief=True)
        self._began = time.monotonic()
        self._ended: Event | None = None
        self._lines = 0
        self._shown: Any = None
        self._drawn = ""

    def show(self, batch: Sequence[Publication]) -> None:
        """Count events, and print what tasks have printed."""
        self._tally.count(batch)
        if isinstance(batch[-1], ENDINGS):
            self._ended = batch[-1]
        if self._shown is None:  # the bars are above the log
            self.draw()
        self._print(self._renderer.render(batch))

    def _print(self, text: str) -> None:
        lines = text.splitlines(keepends=True)
        room = MOST_LINES - self._lines
        self._lines += len(lines)
        if not lines or room < 0:
            return
        sys.stdout.write("".join(lines[:room]))
        if self._lines > MOST_LINES:
            sys.stdout.write(f"More is not shown here:  asyncflow logs {self._pathspec}\n")
        sys.stdout.flush()

    def close(self) -> None:
        """Draw the final state."""
        self.draw()

    def draw(self) -> None:
        """Draw the current state, if it has changed."""
        from IPython import display

        status, seconds = self._state()
        plain = f"{self._pathspec} {status}, {how_long(seconds)}"
        html = _html(self._pathspec, status, seconds, self._tally.rows())
        if html == self._drawn:
            return
        self._drawn = html
        data = {"text/plain": plain, "text/html": html}
        if self._shown is None:
            self._shown = display.display(data, raw=True, display_id=True)  # type: ignore[no-untyped-call] # IPython's is not typed
        else:
            self._shown.update(data, raw=True)

    def _state(self) -> tuple[Status, float]:
        match self._ended:
            case None:
                # whole seconds: else each tick would draw
                return Status.RUNNING, float(int(time.monotonic() - self._began))
            case RunFailed():
                return Status.FAILED, self._ended.seconds
            case RunCancelled():
                return Status.CANCELLED, self._ended.seconds
        return Status.SUCCEEDED, getattr(self._ended, "seconds", 0.0)


_LEFT: Final = " style='text-align: left'"


def _html(pathspec: str, status: Status, seconds: float, rows: Sequence[StepTally]) -> str:
    shown = [row for row in rows if row.done or row.failed or row.running or not status.finished]
    lines = [_row(row) for row in shown[:_MOST_ROWS]]
    if len(shown) > _MOST_ROWS:
        lines.append(f"<tr><td{_LEFT}>… and {len(shown) - _MOST_ROWS} more steps</td></tr>")
    head = f"<code>{escape(pathspec)}</code> {escape(status)}, {how_long(seconds)}"
    names = f"<tr><th{_LEFT}>step</th><th></th><th>tasks</th><th>seconds</th><th></th></tr>"
    return f"<div>{head}<table>{names}{''.join(lines)}</table></div>"


def _row(row: StepTally) -> str:
    total = max(1, row.expected)
    counts = ((row.running, "running"), (row.failed, "failed"), (row.retried, "tried again"))
    remarks = ", ".join(f"{count:,} {what}" for count, what in counts if count)
    return (
        f"<tr><td{_LEFT}><code>{escape(row.step)}</code></td>"
        f"<td><progress max='{total}' value='{min(row.done, total)}'></progress></td>"
        f"<td>{row.done:,}/{row.expected:,}</td><td>{row.seconds:.1f}</td>"
        f"<td{_LEFT}>{remarks}</td></tr>"
    )
