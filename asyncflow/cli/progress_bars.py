"""Progress bars under a run's log, for a terminal. The only module that imports rich.

The bars are the last lines on the screen. Each write erases them, adds lines of the log, and draws
them again, all in one piece of text, so that no line breaks whatever else happens.
"""

from __future__ import annotations

import io
import shutil
from typing import TYPE_CHECKING, Final

from rich.cells import cell_len
from rich.console import Console
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from asyncflow._support.terminal_text import visible_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from asyncflow.client.step_counts import StepTally

_BAR_CELLS: Final = 30
_MOST_ROWS: Final = 12  # and at most half of the screen: the log needs room


def draw_bars(rows: Sequence[StepTally], *, seconds: float, colour: bool) -> str:
    """The bars as lines of text, each with its line end, none wider or higher than the screen."""
    columns, lines = shutil.get_terminal_size()
    console = Console(
        file=io.StringIO(),
        force_terminal=True,
        width=max(20, columns - 1),  # a full last column would wrap on some terminals
        color_system="standard" if colour else None,
        legacy_windows=False,
    )
    shown = _choose(rows, min(_MOST_ROWS, max(1, lines // 2 - 1)))
    table = _table(shown, console.width)
    hidden = len(rows) - len(shown)
    more = f" and {hidden} more step{'s' if hidden > 1 else ''}," if hidden else ""
    with console.capture() as captured:
        console.print(table)
        console.print(Text(f"{more} {_duration(seconds)}".strip(), style="dim"), no_wrap=True)
    return captured.get()


def _table(rows: Sequence[StepTally], width: int) -> Table:
    """A line for each step. If room is short, remarks are cut first, then bars, then names."""
    counts = [f"{row.done}/{row.expected}" for row in rows]
    count_cells = max(map(len, counts), default=0)
    longest = max((cell_len(row.step) for row in rows), default=0)
    name_cells = max(1, min(longest, max(8, width // 3), width - count_cells - 1))
    room = width - name_cells - count_cells - 2  # for the bar and the two gaps beside it
    bar_cells = max(0, min(_BAR_CELLS, width // 3, room))
    remark_cells = room - bar_cells - 1
    table = Table.grid(padding=(0, 1), pad_edge=False)
    table.add_column(no_wrap=True, overflow="ellipsis", width=name_cells)
    if bar_cells:
        table.add_column(no_wrap=True, width=bar_cells)
    table.add_column(justify="right", no_wrap=True, width=count_cells)
    if remark_cells > 0:
        table.add_column(no_wrap=True, overflow="crop", width=remark_cells)
    for row, count in zip(rows, counts, strict=True):
        # as text, because a name is not markup
        cells: list[RenderableType] = [Text(visible_line(row.step))]
        if bar_cells:
            total = max(1, row.expected)
            cells.append(ProgressBar(total=total, completed=row.done, width=bar_cells))
        cells.append(count)
        if remark_cells > 0:
            cells.append(_remarks(row))
        table.add_row(*cells)
    return table


def _choose(rows: Sequence[StepTally], limit: int) -> list[StepTally]:
    """The most informative rows, in order: what runs, what is next, what ended last."""
    if len(rows) <= limit:
        return list(rows)

    def dullness(at: int) -> tuple[bool, bool, bool, int]:
        row = rows[at]
        return not row.running, not row.failed, row.finished, -at if row.finished else at

    return [rows[at] for at in sorted(sorted(range(len(rows)), key=dullness)[:limit])]


def _remarks(row: StepTally) -> Text:
    parts = []
    if row.running:
        parts.append((f"{row.running} running ", "cyan"))
    if row.failed:
        parts.append((f"{row.failed} failed ", "red"))
    if row.retried:
        parts.append((f"{row.retried} retried ", "yellow"))
    return Text.assemble(*parts)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
