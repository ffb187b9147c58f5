"""Makes the pictures of the docs from real runs: `make docs-pictures`.

A terminal is a command that runs in a pseudo-terminal; rich draws what it wrote. A graph is what
`asyncflow graph` says of a flow; Graphviz draws it.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from docs_site.card_pictures import draw_cards
from docs_site.page_pictures import draw_page
from tests.support.doc_pages import fences_of

_DOCS: Final = Path(__file__).parents[1] / "docs"
_PICTURES: Final = _DOCS / "pictures"
_COLUMNS: Final = 96
_ROWS: Final = 24

_SLOW_FLOW: Final = """
import time

from asyncflow import FlowSpec, step


class ScoresFlow(FlowSpec):
    @step
    def start(self):
        self.regions = [f"region {number}" for number in range(40)]
        self.next(self.load, foreach="regions")

    @step
    def load(self):
        time.sleep(0.2)
        self.next(self.join)

    @step
    def join(self, inputs):
        self.next(self.end)

    @step
    def end(self):
        pass
"""

_FAILING_FLOW: Final = """
from asyncflow import FlowSpec, step


class PricesFlow(FlowSpec):
    @step
    def start(self):
        self.prices = {"apple": "1.20", "pear": "1,40"}
        self.next(self.add)

    @step
    def add(self):
        self.total = sum(float(price) for price in self.prices.values())
        self.next(self.end)

    @step
    def end(self):
        print(self.total)
"""

_THEME: Final = TerminalTheme(
    (30, 33, 41),
    (214, 219, 228),
    [
        *[(60, 64, 75), (237, 120, 120), (140, 200, 140), (226, 190, 110)],
        *[(120, 170, 240), (198, 150, 226), (105, 195, 205), (214, 219, 228)],
    ],
)

_SVG: Final = """\
<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
  <style>
    .{unique_id}-matrix {{ font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono",
      monospace;
      font-size: {char_height}px; line-height: {line_height}px }}
    .{unique_id}-title {{ font-family: sans-serif; font-size: 18px; font-weight: bold }}
    {styles}
  </style>
  <defs>
    <clipPath id="{unique_id}-clip-terminal">
      <rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
    </clipPath>
    {lines}
  </defs>
  {chrome}
  <g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
    {backgrounds}
    <g class="{unique_id}-matrix">
    {matrix}
    </g>
  </g>
</svg>
"""
"""Rich's own format without the fonts, which a browser would fetch from elsewhere."""

_DOT: Final = [
    *["-Tsvg", "-Gbgcolor=transparent", "-Gpad=0.1", "-Gnodesep=0.3", "-Granksep=0.6"],
    *["-Nshape=box", "-Nstyle=filled,rounded", "-Ncolor=#5c6bc0", "-Nfillcolor=#e8eaf6"],
    *["-Nfontname=sans-serif", "-Nfontcolor=#1a237e", "-Nfontsize=13", "-Nheight=0.4"],
    *["-Ecolor=#7986cb", "-Efontname=sans-serif", "-Efontcolor=#7986cb", "-Efontsize=11"],
]
"""Colours that can be read on a light page and on a dark one."""

_ERASURE: Final = re.compile(r"\r\x1b\[(\d+)A\x1b\[J")
"""How the command line takes its progress bars away: up so many lines, and clear to the end."""


def main() -> None:
    """Make every picture anew."""
    _PICTURES.mkdir(exist_ok=True)
    draw_page(_PICTURES)
    draw_cards(_PICTURES)
    first = next(each for each in fences_of((_DOCS / "index.md").read_text()) if each.title)
    with tempfile.TemporaryDirectory() as folder:
        files = {first.title: first.text, "scores.py": _SLOW_FLOW, "prices.py": _FAILING_FLOW}
        for name, text in files.items():
            (Path(folder) / name).write_text(text)
        os.chdir(folder)
        _draw_graph("graph", first.title)
        _draw_terminal("run", f"asyncflow run {first.title} --names Ada,Grace,Barbara")
        _draw_terminal("bars", "asyncflow run scores.py --workers 8", midway=True)
        _draw_terminal("failure", "asyncflow run prices.py")


def _draw_graph(name: str, file: str) -> None:
    asyncflow = [sys.executable, "-m", "asyncflow", "graph", file, "--format", "dot"]
    dot = subprocess.run(asyncflow, check=True, capture_output=True, text=True).stdout
    plain = re.sub(r"\[shape=\w+\]|node \[.*?\];", "", dot)  # Graphviz is told all of the style
    command = ["dot", *_DOT]
    drawn = subprocess.run(command, input=plain, check=True, capture_output=True, text=True).stdout
    _keep(name, drawn[drawn.index("<svg") :])


def _draw_terminal(name: str, command: str, *, midway: bool = False) -> None:
    """Draw the screen after a command, or in the middle of its redrawing."""
    screens = _screens(_output_of(command))
    shown = screens[len(screens) // 2] if midway else screens[-1]
    lines = shown.rstrip("\n").split("\n")
    text = "\n".join(lines[-_ROWS // 2 :] if midway else lines)
    console = Console(record=True, width=_COLUMNS, file=Path(os.devnull).open("w"))  # noqa: SIM115 - open for as long as the console
    console.print(Text.from_ansi(f"$ {command}\n{text}"))
    svg = console.export_svg(title="", theme=_THEME, code_format=_SVG, unique_id=name)
    _keep(name, svg)


def _output_of(command: str) -> str:
    """All that a command writes to a terminal."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", _ROWS, _COLUMNS, 0, 0))
    words = command.replace("asyncflow", f"{sys.executable} -m asyncflow", 1).split()
    environ = {**os.environ, "TERM": "xterm-256color"}
    pieces = []
    with subprocess.Popen(words, stdin=theirs, stdout=theirs, stderr=theirs, env=environ):
        os.close(theirs)
        while piece := _read(ours):
            pieces.append(piece)
    os.close(ours)
    return b"".join(pieces).decode().replace("\r\n", "\n")


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # nobody has the other end any more
        return b""


def _screens(output: str) -> list[str]:
    """What the screen shows before each time that bars are taken away, and in the end."""
    first, *rest = _ERASURE.split(output)
    screens = [first]
    for up, new in zip(rest[::2], rest[1::2], strict=True):
        kept = screens[-1].split("\n")[: -1 - int(up)]
        screens.append("".join(f"{line}\n" for line in kept) + new)
    return screens


def _keep(name: str, svg: str) -> None:
    lines = [line.rstrip() for line in svg.splitlines() if line.strip()]
    (_PICTURES / f"{name}.svg").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
