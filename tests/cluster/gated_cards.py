"""A flow whose step has ended with cards, and whose next one shows its card and waits at a gate."""

from __future__ import annotations

import os
import time
from pathlib import Path

from asyncflow import FlowSpec, card, current, step
from asyncflow.cards import Image, Markdown

LARGE = b"\x89PNG\r\n\x1a\n" + b"\x01" * 400_000
SMALL = b"\x89PNG\r\n\x1a\n" + b"\x02" * 20_000


class GatedCards(FlowSpec):
    """A card with an image in a blob and one in a segment, and one of a step that still runs."""

    @card(type="html", id="page")
    @card
    @step
    def start(self):
        self.html = f"<h1>{'x' * 3000}</h1>"
        current.card.extend([Markdown("kept"), Image(LARGE, "large"), Image(SMALL, "small")])
        self.next(self.wait)

    @card
    @step
    def wait(self):
        current.card.extend([Markdown("so far"), Image(SMALL, "small again")])
        current.card.refresh()
        Path(os.environ["RAN"]).write_text("wait\n")
        while not Path(os.environ["GATE"]).exists():
            time.sleep(0.01)
        self.next(self.end)

    @step
    def end(self):
        pass


if __name__ == "__main__":
    GatedCards()
