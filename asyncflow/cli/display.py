"""Progress bars under a run's log, for a terminal. The only module that imports rich.

The bars are the last lines on the screen. Each write takes them away, adds lines of the log, and
puts them back, all in one piece of text, so that no line breaks whatever else happens.
"""

from __future__ import annotations

import io
import shutil
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncflow.cli.tally import StepTally

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
    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True, overflow="ellipsis", max_width=max(8, columns // 3))
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True, overflow="crop")
    for row in shown:
        bar = ProgressBar(
            total=max(1, row.expected), completed=row.done, width=min(_BAR_CELLS, columns // 3)
        )
        table.add_row(row.step, bar, f"{row.done}/{row.expected}", _remarks(row))
    hidden = len(rows) - len(shown)
    more = f" and {hidden} more step{'s' if hidden > 1 else ''}," if hidden else ""
    with console.capture() as captured:
        console.print(table)
        console.print(Text(f"{more} {_duration(seconds)}".strip(), style="dim"), no_wrap=True)
    return captured.get()


def _choose(rows: Sequence[StepTally], limit: int) -> list[StepTally]:
    """The rows that tell most, in order: what runs, what is next, what ended last."""
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
