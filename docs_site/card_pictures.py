"""Makes the pictures of cards and of a report from a real run: a part of `make docs-pictures`."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from docs_site.neutral_names import make_neutral
from tests.support.browser import chromium, wait_until
from tests.support.doc_pages import fences_of

_PAGE: Final = Path(__file__).parents[1] / "docs/how-to/cards.md"
_CARD: Final = 760, 880
_REPORT: Final = 1000, 760


def draw_cards(pictures: Path) -> None:
    """Run the first flow of the page on cards, and take pictures of its card and its report."""
    flow = next(each for each in fences_of(_PAGE.read_text()) if each.title == "train.py")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / flow.title).write_text(flow.text)
        for command in (
            ("run", flow.title, "--quiet"),
            ("card", "get", "Train/latest/start", "card.html"),
            ("report", "Train/latest", "-o", "report.html"),
        ):
            subprocess.run([sys.executable, "-m", "asyncflow", *command], cwd=folder, check=True)
        with chromium(folder) as browser:
            for file, (width, height), scheme in (
                ("card", _CARD, "light"),
                ("report", _REPORT, "light"),
            ):
                browser.resize(width, height)
                browser.prefer(scheme)
                browser.open(f"file://{folder}/{file.partition('-')[0]}.html")
                wait_until(lambda: browser.count(".vega svg path"), "the chart is drawn")
                make_neutral(browser)
                browser.picture(pictures / f"{file}.png")
