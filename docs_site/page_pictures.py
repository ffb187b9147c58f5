"""Makes the pictures of the page from real runs, in Chromium: a part of `make docs-pictures`."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Final

from docs_site.neutral_names import make_neutral
from tests.support import page_flows
from tests.support.browser import wait_until
from tests.support.page_in_browser import Pages, page_in_browser

_PROJECT: Final = Path(tempfile.gettempdir()) / "weather"
"""It is seen in the pictures, so it has a name that means something."""
_NIGHTS: Final = [
    {"cities": "12", "pace": "0.03"},
    {"cities": "14", "pace": "0.04"},
    {"cities": "16", "pace": "0.03"},
    {"cities": "12", "pace": "0.05", "model": "boost"},
    {"cities": "14", "pace": "0.03", "broken": "Kiel"},
    {"cities": "14", "pace": "0.04"},
]
"""The parameters of runs before the one that is shown, so that there is something to compare."""


def draw_page(pictures: Path) -> None:
    """Make the pictures of each view that the documentation shows.

    Raises:
        FileExistsError: There is something already where the runs are to be.
    """
    _PROJECT.mkdir()
    shutil.copy(page_flows.__file__, _PROJECT / "weather.py")
    os.environ["LOGNAME"] = "ada"
    try:
        store = _PROJECT / ".asyncflow"
        with page_in_browser(_PROJECT, store=store, module="weather") as pages:
            _draw(pages, pictures)
    finally:
        shutil.rmtree(_PROJECT)


def _draw(pages: Pages, pictures: Path) -> None:
    crawl = pages.ended(pages.start("CrawlFlow"))
    runs = [pages.ended(pages.start("ForecastFlow", **night)) for night in _NIGHTS]
    for run in runs:
        pages.post(f"runs/{run}/tags", add=["nightly"], remove=[])
    failed, last = runs[-2:]
    live = pages.start("ForecastFlow", cities="16", pace="5")
    wait_until(lambda: pages.get(f"runs/{live}")["run"]["running"], "the live run has begun")

    take = _Camera(pages, pictures)
    take("page-runs", "runs", ".trend", 560)
    take("page-run", f"runs/{failed}", ".steps .trend", 860)
    take("page-run-dark", f"runs/{last}", ".steps .trend", 700, scheme="dark")
    take("page-timeline", f"runs/{crawl}?view=timeline", ".legend", 560)
    combine = pages.get(f"runs/{last}/tasks?step=combine")["tasks"][0]["pathspec"]
    take("page-task", f"runs/{combine}", "iframe", 720, card="degrees")
    shown = ("table", "picture")
    take("page-artifacts", f"runs/{combine}?view=artifacts", ".artifacts", 700, opened=shown)
    take("page-resume", f"runs/{failed}?do=resume", "dialog .reasons li", 640)
    take("page-diff", f"diff?a={runs[0]}&b={runs[3]}", ".diff-steps", 720)
    take("page-narrow", f"runs/{live}", ".steps", 760, width=360)
    pages.post(f"runs/{live}/cancel", reason="")


class _Camera:
    """Takes a picture of a view when something in it is there."""

    def __init__(self, pages: Pages, pictures: Path) -> None:
        self._pages, self._pictures = pages, pictures

    def __call__(
        self,
        name: str,
        place: str,
        seen: str,
        height: int,
        *,
        width: int = 1200,
        scheme: str = "light",
        opened: tuple[str, ...] = (),
        card: str = "",
    ) -> None:
        """Write the picture; `opened` are artifacts at length, `card` is a text in a card."""
        pages = self._pages
        pages.browser.resize(width, height)
        pages.browser.prefer(scheme)
        pages.show(place)
        for artifact in opened:
            script = (
                "return [...document.querySelectorAll('.artifacts summary')]"
                ".find((each) => each.innerText.startsWith(arguments[0]))?.click() ?? true"
            )
            wait_until(lambda: pages.browser.count(".artifacts summary"), "artifacts are listed")
            pages.browser.run(script, artifact)
        wait_until(lambda: pages.browser.count(seen), f"{seen} in {place}")
        if card:
            wait_until(lambda: card in pages.browser.shown_in_frame("iframe"), "the card is drawn")
        pages.is_loaded()
        make_neutral(pages.browser)
        pages.browser.picture(self._pictures / f"{name}.png")
