"""What the user sees of a run while it goes on: its log, on a terminal with bars under it."""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING, Final

from asyncflow.client.log_text import LogRenderer
from asyncflow.client.step_counts import Tally

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from asyncflow.cli.nonblocking_output import NonblockingOutput
    from asyncflow.events.selection import Publication

REDRAW_SECONDS: Final = 0.2
"""The time between redraws of the bars; also how long a run lasts before it gets any."""


def wants_colour(descriptor: int) -> bool:
    """Whether text for this descriptor should be coloured; https://no-color.org says when not."""
    return is_terminal(descriptor) and not os.environ.get("NO_COLOR")


def is_terminal(descriptor: int) -> bool:
    """Whether the descriptor is a terminal that can move its cursor."""
    try:
        return os.isatty(descriptor) and os.environ.get("TERM", "") not in {"", "dumb"}
    except OSError:
        return False


class LogView:
    """The log as plain lines."""

    def __init__(
        self,
        output: NonblockingOutput,
        notes: NonblockingOutput,
        *,
        colour: bool = False,
        terminal: bool = False,
        brief: bool = False,
    ) -> None:
        self._output, self._notes = output, notes
        self._renderer = LogRenderer(colour=colour, terminal=terminal, brief=brief)

    @property
    def needs_all(self) -> bool:
        """Whether it shows more than the run's last event."""
        return not self._output.is_unread

    async def show(self, batch: Sequence[Publication]) -> None:
        """Write the lines of these events."""
        if self._output.is_unread:
            return
        text = self._renderer.render(batch)
        if text:
            await self._output.write(text)

    def note(self, text: str) -> None:
        """Write a note that is not part of the log."""
        self._notes.write_nowait(text)

    def warn(self, time: datetime, text: str) -> None:
        """Write a warning of the library."""
        self._notes.write_nowait(self._renderer.warning(time, text))

    async def close(self) -> None:
        """Leave nothing on the screen but the log."""


class QuietView:
    """Shows the last event of the run and nothing else."""

    needs_all: Final = False

    def __init__(
        self, output: NonblockingOutput, notes: NonblockingOutput, *, colour: bool = False
    ) -> None:
        self._output, self._notes = output, notes
        self._renderer = LogRenderer(colour=colour)
        self._last: Publication | None = None

    async def show(self, batch: Sequence[Publication]) -> None:
        """Keep the last event."""
        self._last = batch[-1]

    def note(self, text: str) -> None:
        """Write a note that is not part of the log."""
        self._notes.write_nowait(text)

    def warn(self, time: datetime, text: str) -> None:
        """Ignore it: a warning is not a failure."""

    async def close(self) -> None:
        """Write the final line."""
        if self._last is not None:
            await self._output.write(self._renderer.render([self._last]))


class BarsView:
    """The log, and under it a bar for each step."""

    needs_all: Final = True

    def __init__(
        self,
        output: NonblockingOutput,
        *,
        colour: bool,
        brief: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._output = output
        self._renderer = LogRenderer(terminal=True, colour=colour, brief=brief)
        self._tally = Tally()
        self._colour = colour
        self._clock = clock
        self._began = clock()
        self._bars = ""  # the bars that are on the screen now
        self._notes = ""
        self._closed = False
        self._draw: Callable[..., str] | None = None
        self._writing = asyncio.Lock()  # a stopped terminal takes a write in pieces

    async def show(self, batch: Sequence[Publication]) -> None:
        """Write the lines of these events, above the bars."""
        self._tally.count(batch)
        text = self._renderer.render(batch)
        if text:
            async with self._writing:
                above = f"{self._take_notes()}{text}"
                await self._output.write(above, erasure=self._erasure(), drawn=self._bars)

    async def tick(self) -> None:
        """Draw the bars in their current state."""
        if self._draw is None:
            # In a thread, because it takes a while: rich is loaded only for a run that lasts.
            self._draw = await asyncio.to_thread(_load_drawing)
        async with self._writing:
            seconds = self._clock() - self._began
            bars = self._draw(self._tally.rows(), seconds=seconds, colour=self._colour)
            erasure, self._bars = self._erasure(), bars
            await self._output.write(self._take_notes(), erasure=erasure, drawn=bars)

    async def close(self) -> None:
        """Erase the bars."""
        async with self._writing:
            self._closed = True
            erasure, self._bars = self._erasure(), ""
            await self._output.write(self._take_notes(), erasure=erasure)

    def note(self, text: str) -> None:
        """Write a note that is not part of the log, with the next write if one is coming."""
        if self._closed:
            self._output.write_nowait(text)
        else:
            self._notes += text

    def warn(self, time: datetime, text: str) -> None:
        """Write a warning of the library, likewise."""
        self.note(self._renderer.warning(time, text))

    def _take_notes(self) -> str:
        notes, self._notes = self._notes, ""
        return notes

    def _erasure(self) -> str:
        lines = self._bars.count("\n")
        return f"\r\x1b[{lines}A\x1b[J" if lines else ""


def _load_drawing() -> Callable[..., str]:
    from asyncflow.cli.progress_bars import draw_bars

    return draw_bars


View = LogView | QuietView | BarsView
