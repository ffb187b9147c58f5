"""Cards in a real browser: as files, and in frames of the page, where nothing gets out."""

from __future__ import annotations

import asyncio
import re
import threading
from functools import partial

import httpx
import pytest

from asyncflow import Engine, Flow, run_sync
from asyncflow.cards import get_cards
from asyncflow.cli.card_server import CardServer
from asyncflow.page.report import report
from tests.support.browser import wait_until
from tests.support.card_flows import Everything, Live, Pages
from tests.support.page_in_browser import page_in_browser


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """The store of all runs of this file."""
    return tmp_path_factory.mktemp("cards") / "store"


@pytest.fixture(scope="module")
def run(store):
    """A run whose card has each component."""
    return run_sync(Everything, store=store)


@pytest.fixture(scope="module")
def pages(tmp_path_factory, store, run):
    """A server on that store, and a browser."""
    with page_in_browser(tmp_path_factory.mktemp("page"), store=store) as pages:
        yield pages


def kinds(browser):
    """What is drawn, by the classes and tags of the first elements of each block."""
    return browser.run(
        "return [...document.querySelectorAll('.block')].map((each) => "
        "each.firstElementChild.className.split(' ')[0] || each.firstElementChild.tagName)"
    )


DRAWN = [
    *("markdown", "row", "table", "FIGURE", "artifact", "error", "vega", "progress", "code"),
    *("artifact", "timeline", "section"),
]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_file_draws_each_component_and_loads_nothing(pages, run, tmp_path, scheme):
    """Vega, too, whose expressions run without `eval`."""
    file = tmp_path / "card.html"
    file.write_text(get_cards(run["start"].task, type="default")[0].get(), encoding="utf-8")
    browser = pages.browser
    browser.prefer(scheme)
    browser.complaints()
    browser.open(f"file://{file}")
    wait_until(lambda: browser.count(".vega svg path"), "the chart is drawn")
    assert kinds(browser)[: len(DRAWN)] == DRAWN
    assert browser.shown("h1") == "A title"
    assert "1,234,567" in browser.shown(".row")
    assert browser.run("return performance.getEntriesByType('resource').length") == 0
    assert browser.complaints() == []


def test_a_card_is_usable_on_a_narrow_screen(pages, run, tmp_path):
    """Nothing is wider than the page but what scrolls by itself."""
    file = tmp_path / "card.html"
    file.write_text(get_cards(run["start"].task, type="default")[0].get(), encoding="utf-8")
    pages.browser.resize(360, 700)
    try:
        pages.browser.open(f"file://{file}")
        wait_until(lambda: pages.browser.count(".vega svg path"), "the chart is drawn")
        assert pages.browser.run("return document.documentElement.scrollWidth") <= 360
    finally:
        pages.browser.resize(1280, 900)


def test_markup_on_a_card_is_text(pages, run, tmp_path):
    """Wherever it stands: nothing of it runs, and no element comes of it."""
    file = tmp_path / "card.html"
    file.write_text(get_cards(run["start"].task, id="hostile")[0].get(), encoding="utf-8")
    browser = pages.browser
    browser.complaints()
    browser.open(f"file://{file}")
    wait_until(lambda: browser.count(".block") >= 6, "it is drawn")
    assert browser.count("main img, main script, main a") == 0
    assert "onerror" in browser.shown("h1")
    wait_until(lambda: "load data from elsewhere" in browser.shown("main"), "the chart is refused")
    assert browser.run("return document.title").startswith("<img")
    assert browser.complaints() == []


def test_the_page_shows_cards_in_frames_that_reach_nothing(pages, run):
    """The HTML of a step runs in its frame alone, and gets nothing from elsewhere."""
    pages.show(f"{'/'.join(['runs', *run['start'].task.pathspec.split('/')])}", "iframe.card-frame")
    browser = pages.browser
    wait_until(lambda: browser.count("iframe.card-frame") == 3, "three cards")
    frames = browser.run(
        "return [...document.querySelectorAll('iframe.card-frame')].map((each) => "
        "[each.getAttribute('sandbox'), each.contentDocument === null])"
    )
    assert frames == [["allow-scripts", True]] * 3
    own = browser.post(
        f"{browser.session}/element", using="css selector", value="iframe.card-frame"
    )
    browser.post(f"{browser.session}/frame", id=own)
    try:
        script = "return document.body.innerText.split(/\\s+/).filter(Boolean).join(' ')"
        wanted = "HTML of the step ran and was refused"
        wait_until(lambda: browser.run(script) == wanted, "its script has run")
    finally:
        browser.post(f"{browser.session}/frame", id=None)
    assert browser.run("return document.title") != "hit"
    browser.complaints()  # the browser says that it has refused the request


def test_the_documents_of_cards_are_sandboxed_wherever_they_are_opened(pages, run):
    """By their policy: also outside of a frame they have an origin of their own."""
    task = run["start"].task
    address = f"/flows/api/runs/{run.pathspec}/cards/start/{task.id}"
    rows = pages.client.get(address).json()["cards"]
    assert [each["id"] for each in rows] == ["page", "hostile", "default"]
    for row in rows:
        answer = pages.client.get(f"{address}/{row['id']}?html=1")
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("sandbox allow-scripts;")
        assert "allow-same-origin" not in policy
        drawing = pages.client.get(f"{address}/{row['id']}").json()
        assert drawing["name"] == row["id"]
    assert pages.client.get(f"{address}/none").status_code == 404


def test_a_refresh_reaches_the_page_while_the_step_runs(pages, store, tmp_path):
    """Its frame is not loaded again: what is new is drawn into it."""
    with Progress(store, tmp_path) as running:
        pages.show(f"runs/{running.task}", "iframe.card-frame")
        for number in (1, 2, 3):
            done = f"{number} / 3"
            wait_until(partial(shows, pages.browser, done), done)
            if number == 1:
                in_frame(pages.browser, "document.body.dataset.same = 'yes'")
            running.go_on(number)
        assert in_frame(pages.browser, "return document.body.dataset.same") == "yes"


def shows(browser, text):
    """Whether the first frame of the page shows a text."""
    return text in in_frame(browser)


def in_frame(browser, script="return document.body.innerText"):
    """What a script returns in the first frame of the page."""
    own = browser.post(f"{browser.session}/element", using="css selector", value="iframe")
    browser.post(f"{browser.session}/frame", id=own)
    try:
        return browser.run(script)
    finally:
        browser.post(f"{browser.session}/frame", id=None)


class Progress:
    """A run of `Live` in a thread, which goes on when it is told."""

    def __init__(self, store, folder):
        self.store, self.folder = store, folder
        self.task = ""

    def __enter__(self):
        begun = threading.Event()

        def work():
            async def main():
                async with Engine(store=self.store, workers=1) as engine:
                    handle = await engine.start(Live, folder=str(self.folder))
                    async for _ in handle.events():
                        if not self.task:
                            self.task = f"{handle.pathspec}/start/1"
                            begun.set()
                    await handle

            asyncio.run(main())

        self.thread = threading.Thread(target=work)
        self.thread.start()
        assert begun.wait(60)
        return self

    def go_on(self, number):
        """Let the step make its next update."""
        (self.folder / str(number)).touch()

    def __exit__(self, *_):
        for number in (1, 2, 3):
            self.go_on(number)
        self.thread.join()


# --- the small server -------------------------------------------------------------------------


def test_card_server_shows_cards_live_and_answers_only_this_machine(pages, store, run, tmp_path):
    """It needs nothing installed, and a name of somebody else that leads here is refused."""
    with (
        Progress(store, tmp_path) as running,
        CardServer(Flow("Live", store=store), 0, seconds=0.05, most=5) as served,
    ):
        thread = threading.Thread(target=served.serve_forever)
        thread.start()
        try:
            browser = pages.browser
            browser.complaints()
            browser.open(served.address)
            wait_until(lambda: browser.count("iframe"), "a card")
            wait_until(lambda: "1 / 3" in in_frame(browser), "the first update")
            running.go_on(1)
            wait_until(lambda: "2 / 3" in in_frame(browser), "the second update")
            assert browser.complaints() == []
            answer = httpx.get(served.address, headers={"Host": "evil.example"})
            assert answer.status_code == 403
            page = httpx.get(f"{served.address}card/{running.task}/0")
            assert page.headers["content-security-policy"].startswith("sandbox allow-scripts")
            for wrong in ("card/x", "card/../../etc/passwd", "drawing/A/1/start/1/0", "nothing"):
                assert httpx.get(served.address + wrong).status_code == 404
        finally:
            served.stop()
            thread.join()


# --- a report ---------------------------------------------------------------------------------


def test_a_report_is_one_file_with_graph_timeline_steps_and_cards(pages, run, tmp_path):
    """It loads nothing, and HTML of a step has a frame of its own."""
    file = tmp_path / "report.html"
    file.write_text(report(run), encoding="utf-8")
    browser = pages.browser
    browser.complaints()
    browser.open(f"file://{file}")
    wait_until(lambda: browser.count(".vega svg path"), "the chart is drawn")
    titles = browser.run(
        "return [...document.querySelectorAll('.part > h2')].map((e) => e.innerText)"
    )
    assert titles == ["Graph", "Timeline", "Steps", "Results", "Cards"]
    assert browser.count(".node") == 2
    assert browser.count(".bar.succeeded") == 2
    assert browser.count("article") == 3
    assert browser.count("iframe[sandbox=allow-scripts]") == 1
    assert browser.run("return performance.getEntriesByType('resource').length") <= 1  # the frame
    assert not re.search(r"https?://(?!www\.w3\.org|vega\.github\.io)", browser.shown("article"))


# --- cards that are HTML ------------------------------------------------------------------------

FRAMES = """return Object.fromEntries([...document.querySelectorAll("section.card")].map((each) =>
    [each.querySelector("h2").textContent, each.querySelector("iframe").clientHeight]))"""
ANIMATED = """let frames = 0;
    return new Promise((done) => {
      const count = () => { if (++frames < 120) requestAnimationFrame(count); else done(frames); };
      count();
    })"""
COLOURS = """const body = getComputedStyle(document.body);
    const root = getComputedStyle(document.documentElement);
    return [body.color, body.backgroundColor, root.colorScheme]"""


@pytest.fixture(scope="module")
def html_run(store):
    """A run whose cards are HTML."""
    return run_sync(Pages, store=store)


def in_card(browser, title, script):
    """What a script gives in the frame of this card."""
    selector = f'iframe[title="Card {title}"]'
    found = browser.post(f"{browser.session}/element", using="css selector", value=selector)
    browser.post(f"{browser.session}/frame", id=found)
    try:
        return browser.run(script)
    finally:
        browser.post(f"{browser.session}/frame", id=None)


def show_html_cards(pages, run):
    """Open the page of the task, and wait until its frames are as high as their content."""
    pages.show(f"runs/{run['start'].task.pathspec}", "iframe.card-frame")
    browser = pages.browser
    browser.run("for (const each of document.querySelectorAll('iframe')) each.loading = 'eager'")
    wait_until(lambda: browser.run(FRAMES).get("long", 0) > 1000, "the long one is seen whole")
    wait_until(lambda: browser.run(FRAMES).get("short", 999) < 100, "the short one has one line")
    return browser


def test_a_frame_is_as_high_as_the_html_in_it(pages, html_run):
    """A short one leaves no room, a long one has no bar; what follows its frame grows to no end."""
    browser = show_html_cards(pages, html_run)
    inner = "return [document.documentElement.scrollHeight, innerHeight]"
    content, frame = in_card(browser, "long", inner)
    assert content <= frame + 1
    assert browser.run(ANIMATED) == 120  # nothing grows after these
    assert browser.run(FRAMES)["growing"] < 1000


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_html_that_names_no_colour_has_those_of_the_page(pages, html_run, scheme):
    """What names one looks as it does alone: on white, whatever the page is."""
    pages.browser.prefer(scheme)
    try:
        browser = show_html_cards(pages, html_run)
        text = {"light": "rgb(27, 33, 41)", "dark": "rgb(228, 232, 237)"}[scheme]
        assert in_card(browser, "short", COLOURS) == [text, "rgba(0, 0, 0, 0)", "light dark"]
        assert in_card(browser, "coloured", COLOURS) == [
            "rgb(0, 0, 0)",
            "rgb(255, 247, 224)",
            "normal",
        ]
    finally:
        pages.browser.prefer("light")
