"""Flows that the page is shown and tested with: each ends in a way of its own, or not at all."""

from __future__ import annotations

import asyncio
import random
import struct
import sys
import time
import zlib

import numpy as np
import pandas as pd

from asyncflow import FlowSpec, Parameter, card, concurrency, current, limit, retry, step
from asyncflow.cards import Markdown, ProgressBar, ValueBox, VegaChart

CITIES = [
    *["Aachen", "Berlin", "Bremen", "Dresden", "Erfurt", "Hamburg", "Kiel", "Leipzig"],
    *["Mainz", "Munich", "Rostock", "Stuttgart", "Trier", "Ulm", "Weimar", "Wismar"],
]


PAPER = """
<!doctype html><title>Cities</title>
<style>body {{ font: 15px sans-serif; margin: 16px }}</style>
<h1>Cities on the map</h1><ul>{rows}</ul>
<script>
let reached = "nothing of the page";
try {{ reached = parent.document.title }} catch {{}}
document.body.append(`This frame has reached ${{reached}}.`)
</script>
"""
CITY = "<li>{}</li>"


def drawn(temperatures):
    """A PNG with a column of colour for each temperature."""
    warm = np.clip((np.asarray(temperatures) - 5) / 25, 0, 1)
    columns = np.repeat(np.stack([70 + 180 * warm, 120 + 40 * warm, 220 - 170 * warm], 1), 14, 0)
    shade = np.linspace(1, 0.55, 96)[:, None, None]
    pixels = (columns[None] * shade).astype(np.uint8)
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    size = struct.pack(">2I5B", pixels.shape[1], pixels.shape[0], 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", size), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )


class ForecastFlow(FlowSpec):
    """Forecast tomorrow's weather in some cities, from what was measured today."""

    cities = Parameter("cities", default=12, help="How many cities, at most 16.")
    model = Parameter("model", default="ridge", help="The kind of model.")
    pace = Parameter("pace", default=0.05, help="Seconds that a city takes.")
    broken = Parameter("broken", default="", help="A city whose measurements are wrong.")

    @step
    def start(self):
        """Choose the cities."""
        self.chosen = CITIES[: self.cities]
        print(f"forecast for {len(self.chosen)} cities with {self.model}")
        self.next(self.measure, foreach="chosen")

    @retry(times=1)
    @limit("weather-station", 3)
    @step
    def measure(self):
        """Get the measurements of one city."""
        city = self.input
        print(f"asking the station of {city}")
        time.sleep(self.pace * (1 + len(city) % 4))
        if city == self.broken:
            print(f"{city}: the answer is not a table", file=sys.stderr)
            raise ValueError(f"{city} has measured 'n/a' degrees")
        days = np.arange(24)
        self.degrees = 12 + len(city) + 6 * np.sin(days / 4)
        print(f"{city}: {len(days)} values, {self.degrees.mean():.1f} degrees in the mean")
        self.next(self.gather)

    @step
    def gather(self, inputs):
        """Put the measurements into one table."""
        self.table = pd.DataFrame(
            {
                "city": [each.input for each in inputs],
                "mean": [float(each.degrees.mean()) for each in inputs],
                "highest": [float(each.degrees.max()) for each in inputs],
            }
        )
        self.rounds = 0
        self.next(self.draw, self.fit)

    @card(type="html")
    @step
    def draw(self):
        """Draw a map."""
        time.sleep(self.pace * 2)
        self.html = PAPER.format(rows="".join(map(CITY.format, self.table["city"])))
        self.picture = drawn(self.table["mean"])
        self.next(self.combine)

    @step
    def fit(self):
        """Fit the model once more."""
        self.rounds += 1
        time.sleep(self.pace * 3)
        self.weights = np.linspace(0, 1, 8) / self.rounds
        self.verdict = "good" if self.rounds >= 3 else "again"
        print(f"round {self.rounds}: error {1 / self.rounds:.3f}, {self.verdict}")
        self.next({"again": self.fit, "good": self.check}, condition="verdict")

    @step
    def check(self):
        """Compare with yesterday."""
        time.sleep(self.pace)
        self.next(self.combine)

    @card(type="blank", id="forecast")
    @step
    def combine(self, inputs):
        """Bring the map and the model together."""
        self.rounds = max(each.rounds for each in inputs)
        self.merge_artifacts(inputs)
        self.summary = {"model": self.model, "rounds": self.rounds, "cities": len(self.table)}
        warmest = self.table.loc[self.table["highest"].idxmax()]
        current.card.append(Markdown(f"## Tomorrow\n\nThe warmest city is **{warmest['city']}**."))
        current.card.append(ValueBox(title="Cities", value=len(self.table)))
        current.card.append(ValueBox(title="Rounds", value=self.rounds, theme="success"))
        current.card.append(ValueBox(title="Highest", value=f"{warmest['highest']:.1f} °C"))
        current.card.append(VegaChart(self.chart()))
        self.next(self.end)

    def chart(self):
        """The highest and mean temperature of each city, for Vega-Lite."""
        values = [
            {"city": row["city"], "degrees": row[kind], "kind": kind}
            for row in self.table.to_dict("records")
            for kind in ("mean", "highest")
        ]
        return {
            "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
            "data": {"values": values},
            "mark": "bar",
            "width": "container",
            "height": 180,
            "encoding": {
                "x": {"field": "city", "type": "nominal", "title": None},
                "y": {"field": "degrees", "type": "quantitative", "stack": None},
                "color": {"field": "kind", "type": "nominal", "title": None},
                "xOffset": {"field": "kind"},
            },
        }

    @step
    def end(self):
        """Say how it went."""
        print(f"summary: {self.summary}")


class CrawlFlow(FlowSpec):
    """Read a few thousand pages, many at a time."""

    pages = Parameter("pages", default=4000)

    @step
    def start(self):
        """List the pages."""
        self.addresses = [f"page {number}" for number in range(self.pages)]
        self.next(self.fetch, foreach="addresses")

    @concurrency(120)
    @step
    async def fetch(self):
        """Get one page."""
        chance = random.Random(self.input)  # the same in every run
        await asyncio.sleep(chance.expovariate(20))
        self.length = chance.randrange(40_000)
        self.next(self.add)

    @step
    def add(self, inputs):
        """Add their lengths."""
        self.total = sum(each.length for each in inputs)
        self.next(self.end)

    @step
    def end(self):
        """Tell it."""
        print(f"{self.total} characters")


class WaitingFlow(FlowSpec):
    """Works until it is cancelled."""

    tasks = Parameter("tasks", default=6)

    @step
    def start(self):
        """Begin."""
        self.numbers = list(range(self.tasks))
        self.next(self.work, foreach="numbers")

    @card(type="blank")
    @step
    def work(self):
        """Count slowly."""
        bar = ProgressBar(max=6000, label="ticks")
        current.card.append(bar)
        for tick in range(6000):
            print(f"tick {tick} of number {self.input}")
            bar.update(tick)
            if tick % 10 == 0:
                current.card.refresh()
            time.sleep(0.05)
        self.next(self.join)

    @step
    def join(self, inputs):
        """Never reached."""
        self.next(self.end)

    @step
    def end(self):
        """Never reached."""


class SilentFlow(FlowSpec):
    """Prints nothing, until it is cancelled."""

    @step
    async def start(self):
        """Wait."""
        await asyncio.Event().wait()
        self.next(self.end)

    @step
    def end(self):
        """Never reached."""


class HostileFlow(FlowSpec):
    """Prints and keeps what would do harm if it were taken for more than text."""

    text = Parameter("text", default="<img src=x onerror=window.harmed=1>")

    @step
    def start(self):
        """<script>window.harmed = 1</script>"""  # noqa: D415 - it is what is tested
        print("<script>window.harmed = 1</script> <b>bold</b>")
        print("\x1b[31mred\x1b[0m \x1b]0;title\x07 end")
        self.markup = "<svg onload='window.harmed = 1'>"
        self.next(self.end)

    @step
    def end(self):
        """Fail."""
        raise RuntimeError("<script>window.harmed = 1</script>")


FLOWS = (ForecastFlow, CrawlFlow, WaitingFlow, SilentFlow, HostileFlow)
