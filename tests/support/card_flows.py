"""Flows with cards, for tests in a browser."""

from __future__ import annotations

import time
from pathlib import Path

from asyncflow import FlowSpec, Parameter, card, current, step
from asyncflow.cards import (
    Artifact,
    Error,
    EventsTimeline,
    Image,
    JSONViewer,
    Markdown,
    ProgressBar,
    PythonCode,
    Table,
    ValueBox,
    VegaChart,
)

PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNgYGD4DwABBAEA"
    "X+XDSwAAAABJRU5ErkJggg=="
)
MARKUP = "<img src=x onerror=\"parent.document.title='hit'\"><script>document.title='hit'</script>"


class Everything(FlowSpec):
    """A card with each component, a hostile one, and one that is HTML."""

    @card(type="html", id="page")
    @card(type="blank", id="hostile", options={"title": MARKUP})
    @card
    @step
    def start(self):
        self.html = (
            "<title>own</title><p id='own'>HTML of the step</p><script>"
            "document.getElementById('own').textContent += ' ran';"
            "try { parent.document.title = 'hit' } catch { }"
            "fetch('http://127.0.0.1:9/').catch(() => document.body.append(' and was refused'))"
            "</script>"
        )
        events = EventsTimeline("Events")
        events.update({"what": "began"}, style_theme="success", payloads={"more": Markdown("*x*")})
        values = [{"x": number, "y": number * number} for number in range(10)]
        chart = {
            "data": {"values": values},
            "transform": [{"calculate": "datum.y + 1", "as": "z"}],
            "mark": "bar",
            "encoding": {"x": {"field": "x"}, "y": {"field": "z", "type": "quantitative"}},
        }
        current.card.extend(
            [
                Markdown("# A title"),
                ValueBox("Loss", 0.25, theme="success"),
                ValueBox("Rows", 1234567),
                Table([["a", 1.5], ["b", 22]], headers=["name", "value"]),
                Image(PIXEL, "a pixel"),
                Artifact({"a": 1}, "an artifact"),
                Error(ValueError("no rows"), "An error"),
                VegaChart(chart),
                ProgressBar(max=4, value=3, label="Progress"),
                PythonCode(code_string="def f(x):\n    return x"),
                JSONViewer({"a": [1, {"b": None}]}, title="Data"),
                events,
            ]
        )
        hostile = current.card["hostile"]
        hostile.extend(
            [
                Markdown(f"{MARKUP} [link](javascript:alert(1))\n\n{MARKUP}"),
                Table([[MARKUP, Artifact(MARKUP, MARKUP)]], headers=[MARKUP]),
                ValueBox(MARKUP, MARKUP, MARKUP, MARKUP, MARKUP),
                ProgressBar(max=1, label=MARKUP, unit=MARKUP, metadata=MARKUP),
                Error(MARKUP, MARKUP),
                JSONViewer({MARKUP: MARKUP}, title=MARKUP, max_height=MARKUP),
                VegaChart({"data": {"url": "http://127.0.0.1:9/"}, "mark": "bar", "title": MARKUP}),
            ]
        )
        self.next(self.end)

    @step
    def end(self):
        pass


class Live(FlowSpec):
    """Goes on each time a file comes, and shows that on its card."""

    folder = Parameter("folder", type=str)

    @card(type="blank")
    @step
    def start(self):
        bar = ProgressBar(max=3, label="Steps")
        current.card.append(bar)
        for number in range(1, 4):
            bar.update(number)
            current.card.refresh()
            until = time.monotonic() + 100
            while not Path(self.folder, str(number)).exists() and time.monotonic() < until:
                time.sleep(0.005)
        self.next(self.end)

    @step
    def end(self):
        pass


class Pages(FlowSpec):
    """Cards that are HTML: three of other heights, and one that names its colours."""

    @card(type="html", id="short", options={"attribute": "short"})
    @card(type="html", id="long", options={"attribute": "long"})
    @card(type="html", id="growing", options={"attribute": "growing"})
    @card(type="html", id="coloured", options={"attribute": "coloured"})
    @step
    def start(self):
        self.short = "<p>one line</p>"
        self.long = "<!DOCTYPE html><title>T</title>" + "<p>a line</p>" * 60
        self.growing = (
            "<div style='height: 110vh'>higher than its frame, however high that is</div>"
        )
        self.coloured = "<body style='background: #fff7e0'><p>dark on light</p></body>"
        self.next(self.end)

    @step
    def end(self):
        pass
