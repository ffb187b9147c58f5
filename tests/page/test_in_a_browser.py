"""The page in a real browser, on a server with an engine: what is seen, and what can be done."""

from __future__ import annotations

import signal
import subprocess
import sys

import httpx
import pytest

from tests.support.browser import SECONDS, wait_until
from tests.support.page_in_browser import page_in_browser
from tests.support.page_scripts import FAINT_TEXTS, PAINTED
from tests.support.page_stores import RUNS, every_kind

pytestmark = pytest.mark.long  # a server, a browser and some twenty runs

VIEWS = ("overview", "timeline", "tasks", "log", "events", "code")
ENTER, ESCAPE, DOWN = "\ue007", "\ue00c", "\ue015"
WHO = "return [...document.querySelectorAll('.log .who')].map((each) => each.textContent)"
TAB_IS_SEEN = """
const tab = document.querySelector('.tabs [aria-current]');
return !tab || tab.getBoundingClientRect().right <= innerWidth;
"""
SHORT = {"cities": "7", "pace": "0.001"}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """The folder of a store with a run of every kind, of which nothing may ever be unpickled."""
    folder = tmp_path_factory.mktemp("page")
    every_kind(folder / "store", folder / "touched")
    yield folder / "store"
    assert not (folder / "touched").exists()


@pytest.fixture(scope="module")
def pages(store):
    """A server and a browser, for all tests of this file."""
    with page_in_browser(store.parent) as pages:
        yield pages


@pytest.fixture(scope="module")
def good(pages):
    """A run that has succeeded."""
    return pages.ended(pages.start("ForecastFlow", **SHORT))


@pytest.fixture(scope="module")
def bad(pages):
    """A run that has failed: one city's measurements are wrong, twice."""
    return pages.ended(pages.start("ForecastFlow", **SHORT, broken="Kiel"))


@pytest.fixture(scope="module")
def hostile(pages):
    """A run of which everything is markup."""
    return pages.ended(pages.start("HostileFlow"))


@pytest.fixture(autouse=True)
def calm(pages):
    """After each test: the browser has not complained, and nothing came from elsewhere."""
    pages.browser.complaints()
    yield
    assert [each for each in pages.browser.complaints() if "Canvas2D" not in each] == []
    script = "return performance.getEntriesByType('resource').map((each) => each.name)"
    elsewhere = [each for each in pages.browser.run(script) if not each.startswith(pages.url)]
    assert elsewhere == []


# --- what is seen ------------------------------------------------------------------------------


def test_runs_are_grouped_by_flow_and_filtered(pages, good, bad):
    """The address has the filter, so a link shows what its sender saw."""
    pages.show("runs", ".run-row")
    pages.sees("ForecastFlow", ".group h2")
    pages.browser.click(".filters .chip[aria-pressed]:nth-of-type(2)")
    pages.at("status=failed")
    wait_until(
        lambda: pages.browser.run(
            "return [...document.querySelectorAll('.run-row')]"
            ".every((row) => row.dataset.status == 'failed')"
        ),
        "only failed runs are left",
    )
    assert pages.browser.count(f".run-row[data-run='{bad.split('/')[1]}']") == 1
    pages.browser.write("[data-search]", good.split("/")[1])
    pages.at(good.split("/")[1])
    pages.sees("No run is like that")


def test_a_run_is_drawn_with_what_became_of_its_steps(pages, bad):
    """A foreach that failed, what comes after it, and the way back of a loop."""
    pages.show(f"runs/{bad}", "a.node")
    states = {
        step: pages.browser.run(
            "return document.querySelector(arguments[0]).dataset.state", f"a.node[data-step={step}]"
        )
        for step in ("start", "measure", "gather", "fit")
    }
    assert states == {
        "start": "succeeded",
        "measure": "failed",
        "gather": "pending",
        "fit": "pending",
    }
    assert pages.browser.count(".edge.back") == 1
    pages.sees("ValueError", ".failure")
    pages.sees("asyncflow resume", ".notice.failed")
    pages.browser.click("a.node[data-step=measure] .name")
    pages.at("step=measure")
    pages.sees("measure/", ".task-row[data-row]")


@pytest.mark.parametrize(
    ("kind", "seen"),
    [
        ("succeeded", "succeeded"),
        ("failed", "asyncflow resume"),
        ("cancelled", "asyncflow resume"),
        ("interrupted", "asyncflow resume"),
        ("damaged", "asyncflow verify"),
        ("newer", "upgrade asyncflow"),
        ("hostile", "cancelled"),
    ],
)
def test_a_run_that_ended_anyhow_says_what_is_known_and_what_to_do(pages, kind, seen):
    """Whatever became of it, each view shows something, and nothing in it is markup."""
    run = f"Made/{RUNS[kind]}"
    pages.show(f"runs/{run}", "main h1, main .notice")
    pages.sees(seen)
    for view in VIEWS:
        pages.browser.run("location.hash = arguments[0]", f"#/runs/{run}?view={view}")
        pages.is_loaded()
    pages.browser.complaints()  # of the browser itself, on answers that tell what is damaged
    assert pages.browser.count("main script") == 0


def test_a_timeline_is_drawn_looked_into_and_leads_to_tasks(pages, good):
    """Dragging chooses a part of the time; a click opens the task below it."""
    pages.show(f"runs/{good}?view=timeline", "canvas")
    wait_until(lambda: painted(pages.browser), "something is drawn")
    drag(pages.browser, 300, 120, 700, 120)
    pages.at("from=")
    pages.browser.run("document.querySelector('canvas').focus()")
    pages.browser.press("0")
    wait_until(lambda: "from=" not in pages.place(), "all is seen")
    wait_until(lambda: opens_a_task(pages, good), "a task is open")


def test_a_timeline_is_looked_into_by_the_wheel(pages, good):
    """With Ctrl around the pointer, with Shift along; without either, the page scrolls."""
    pages.show(f"runs/{good}?view=timeline", "canvas")
    wait_until(lambda: painted(pages.browser), "something is drawn")
    assert not turn(pages.browser, 200, "{}")
    assert turn(pages.browser, -200, "{ctrlKey: true}")
    pages.at("from=")
    seen = part_of(pages)
    pages.is_loaded()
    assert turn(pages.browser, 100, "{shiftKey: true}")
    wait_until(lambda: part_of(pages) != seen, "it has moved")
    begin, end = part_of(pages)
    assert begin > seen[0]
    assert abs((end - begin) - (seen[1] - seen[0])) <= 2


def turn(browser, by, keys):
    """Turn the wheel over the middle of the canvas; whether the page takes it."""
    return browser.run(
        "const canvas = document.querySelector('canvas');"
        "const box = canvas.getBoundingClientRect();"
        "const at = {clientX: box.left + box.width / 2, clientY: box.top + 40};"
        f"const event = new WheelEvent('wheel', {{...at, ...{keys}, deltaY: {by},"
        " bubbles: true, cancelable: true});"
        "return !canvas.dispatchEvent(event)"
    )


def part_of(pages):
    """Which part of the run the address has."""
    query = dict(each.split("=") for each in pages.place().partition("?")[2].split("&"))
    return int(query["from"]), int(query["to"])


def test_a_flow_that_there_is_not_is_no_lost_connection(pages, good):
    """The page says that there is no such flow, and asks no more."""
    pages.show("runs?flow=NeverRun", "main .notice")
    pages.sees("NeverRun", "main .notice")
    assert pages.browser.count("header .link") == 0
    complaints = pages.browser.complaints()  # of the browser itself, on the answer's status
    assert all("Failed to load resource" in each for each in complaints)


def opens_a_task(pages, run):
    """Click on the first bar; it may be drawn elsewhere just then, so a click may miss it."""
    bar = None if pages.place().startswith(f"#/runs/{run}/") else first_bar(pages.browser)
    if bar is not None:
        drag(pages.browser, *bar, *bar)
    return pages.place().startswith(f"#/runs/{run}/")


def painted(browser):
    """Whether the canvas has a bar of a task that has succeeded."""
    return browser.run(PAINTED) is not None


def first_bar(browser):
    """Where in the canvas the first such bar is."""
    return browser.run(PAINTED)


def drag(browser, x1, y1, x2, y2):
    """Press the mouse in the canvas, move it, and let go."""
    left, top = browser.run(
        "const box = document.querySelector('canvas').getBoundingClientRect();"
        "return [Math.round(box.left), Math.round(box.top)]"
    )
    actions = [
        {"type": "pointerMove", "x": left + int(x1), "y": top + int(y1), "duration": 0},
        {"type": "pointerDown", "button": 0},
        {"type": "pointerMove", "x": left + int(x2), "y": top + int(y2), "duration": 50},
        {"type": "pointerUp", "button": 0},
    ]
    browser.post(
        f"{browser.session}/actions", actions=[{"type": "pointer", "id": "m", "actions": actions}]
    )


def test_failed_tasks_come_first_and_any_is_found(pages, bad):
    """By its index in the foreach; the state is a filter."""
    pages.show(f"runs/{bad}?view=tasks", ".task-row[data-row]")
    first = "return document.querySelector('.task-row[data-row]').dataset.state"
    assert pages.browser.run(first) == "failed"
    pages.browser.write("[data-search]", "[3]")
    wait_until(lambda: pages.browser.count(".task-row[data-row]") == 1, "one task is left")
    pages.sees("[3]", ".task-row[data-row]")
    pages.browser.click(".task-row[data-row]")
    pages.sees("measure/", "h1")


def test_a_log_is_searched(pages, good):
    """On the server; what matches is marked."""
    pages.show(f"runs/{good}?view=log", ".log")
    pages.sees("asking the station of Berlin", ".log")
    pages.browser.write("[data-search]", "bremen")
    wait_until(lambda: "Berlin" not in pages.browser.shown(".log"), "others are left out")
    wait_until(lambda: pages.browser.count(".log mark") == 2, "matches are marked")


def test_what_a_run_prints_and_keeps_is_text(pages, hostile):
    """Markup in output, names, values and failures is shown as it is; colours alone are kept."""
    step = pages.get(f"runs/{hostile}/tasks?step=start")["tasks"][0]["pathspec"]
    for place in (hostile, f"{hostile}?view=log", f"{hostile}?view=events", step):
        pages.show(f"runs/{place}")
        pages.sees("window.harmed")
    pages.show(f"runs/{hostile}?view=log", ".log")
    pages.sees("<b>bold</b>", ".log")
    pages.sees("red  end", ".log")
    ends = [each.strip() for each in pages.browser.run(WHO)]
    assert ends == ["start/1", "end/2", "the run"]
    assert pages.browser.shown(".log .ansi-1") == "red"
    assert pages.browser.run("return window.harmed ?? null") is None
    assert pages.browser.count(".log b, main img[src=x], main script") == 0


def test_events_open_to_their_json(pages, good):
    """All of them, by type."""
    pages.show(f"runs/{good}?view=events&type=RunStarted", ".events summary")
    pages.browser.click(".events summary")
    pages.sees('"parameters"', ".events pre")
    assert pages.browser.count(".events li") == 1


def test_a_task_shows_why_it_failed_and_each_attempt(pages, bad):
    """The traceback of the last attempt; the one before has its own."""
    failed = pages.get(f"runs/{bad}/tasks?state=failed")["tasks"][0]["pathspec"]
    pages.show(f"runs/{failed}", ".traceback")
    pages.sees("Kiel has measured", ".traceback")
    assert pages.browser.count("tr.chosen") == 1
    pages.browser.click("tbody tr:first-child button")
    pages.sees("0", "tr.chosen td")


def test_artifacts_are_shown_and_can_be_kept(pages, good):
    """A table, an array and a picture, each as what it is; the download has the stored bytes."""
    task = pages.get(f"runs/{good}/tasks?step=combine")["tasks"][0]["pathspec"]
    pages.show(f"runs/{task}?view=artifacts", ".artifacts summary")
    pages.sees("city, mean, highest", ".artifacts")
    pages.browser.run(
        "for (const each of document.querySelectorAll('.artifacts summary')) each.click()"
    )
    pages.sees("Aachen", ".values")
    wait_until(
        lambda: pages.browser.run(
            "return document.querySelector('.picture img')?.naturalWidth > 0"
        ),
        "the picture is shown",
    )
    link = pages.browser.run("return document.querySelector('a[download]').href")
    answer = httpx.get(link)
    assert answer.status_code == 200
    assert answer.headers["content-disposition"].startswith("attachment")


def test_a_card_is_drawn(pages, good):
    """What the step has put onto it, with a chart."""
    task = pages.get(f"runs/{good}/tasks?step=combine")["tasks"][0]["pathspec"]
    pages.show(f"runs/{task}", "iframe.card-frame")
    wait_until(lambda: "The warmest city" in card(pages), "the card is drawn")
    wait_until(lambda: "degrees" in card(pages), "the chart has its axis")


def card(pages):
    """The text of the first card."""
    return pages.browser.shown_in_frame("iframe.card-frame")


def test_a_card_of_html_reaches_nothing_of_the_page(pages, good):
    """Its scripts run in a frame that has no origin."""
    task = pages.get(f"runs/{good}/tasks?step=draw")["tasks"][0]["pathspec"]
    pages.show(f"runs/{task}", "iframe.card-frame")
    wait_until(lambda: "Aachen" in card(pages), "the frame is loaded")
    assert "reached nothing of the page" in card(pages)


def test_the_source_is_that_of_the_run(pages, good):
    """As it was when the run started."""
    pages.show(f"runs/{good}?view=code", ".source")
    pages.sees("class ForecastFlow(FlowSpec):", ".source")


def test_two_runs_are_compared(pages, good, bad):
    """Parameters that differ, how long steps took, and artifacts by their hashes."""
    pages.show(f"diff?a={good}&b={bad}", ".diff-steps")
    pages.sees("broken")
    pages.sees("Kiel")
    pages.sees("It is the same.")
    assert pages.browser.count(".diff-steps tbody tr") == 9


# --- what is done ------------------------------------------------------------------------------


def test_a_run_that_has_printed_nothing_so_far_says_so(pages):
    """It may still print something."""
    run = pages.start("SilentFlow")
    pages.show(f"runs/{run}?view=log", ".empty")
    pages.sees("Nothing has been printed yet")
    pages.post(f"runs/{run}/cancel")
    pages.ended(run)


def test_a_run_is_watched_and_cancelled(pages):
    """Lines come as they are printed; the state changes without a reload."""
    run = pages.start("WaitingFlow", tasks="2")
    pages.show(f"runs/{run}?view=log", ".log, .empty")
    pages.sees("tick 3 of number 1", ".log")
    wait_until(lambda: pages.browser.count(".link.live"), "the page is live")
    pages.browser.run("window.same = true")
    pages.browser.click("[data-do=cancel]")
    pages.browser.write("dialog input", "seen enough")
    pages.browser.click("dialog .primary")
    pages.sees("cancelled", ".big-state")
    assert pages.browser.run("return window.same") is True
    assert pages.get(f"runs/{run}")["run"]["status"] == "cancelled"
    pages.show(f"runs/{run}", ".node .track.stopped")
    assert pages.browser.count(".node .track.bad") == 0  # red is what has failed


def test_a_card_changes_while_its_task_runs(pages):
    """A progress bar that the step refreshes moves."""
    run = pages.start("WaitingFlow", tasks="1")
    try:
        wait_until(lambda: pages.get(f"runs/{run}/tasks?step=work")["tasks"], "the task runs")
        task = pages.get(f"runs/{run}/tasks?step=work")["tasks"][0]["pathspec"]
        pages.show(f"runs/{task}", "iframe.card-frame")
        wait_until(lambda: "ticks" in card(pages), "the card is drawn")
        before = card(pages)
        wait_until(lambda: card(pages) != before, "the bar has moved")
    finally:
        pages.post(f"runs/{run}/cancel", reason="")


def test_the_list_is_live(pages, good):
    """A run that starts appears, and its progress moves."""
    assert good.startswith("ForecastFlow/")  # the flow has run, so there is a list
    pages.show("runs?flow=ForecastFlow&group=no", ".run-row")
    run = pages.start("ForecastFlow", cities="5", pace="0.02")
    row = f".run-row[data-run='{run.split('/')[1]}']"
    wait_until(lambda: pages.browser.count(row), "the run has a row")
    wait_until(lambda: pages.browser.count(f"{row}[data-status=succeeded]"), "its end is seen")


def test_a_run_is_resumed_after_its_plan_was_seen(pages, bad):
    """What is kept and what will run is drawn on the graph; the new run is opened."""
    pages.show(f"runs/{bad}?do=resume", "dialog .node")
    pages.sees("kept", "dialog")
    pages.sees("kept", "dialog [data-step=start]")
    pages.sees("to run", "dialog [data-step=measure]")
    pages.browser.click("dialog .primary")
    wait_until(lambda: bad not in pages.place(), "the new run is open")
    pages.sees(f"resumes {bad.split('/')[1]}")


def test_a_run_is_started_from_a_form(pages, good):
    """Made from the flow's parameters; the new run is opened."""
    pages.show("runs?flow=ForecastFlow&do=run", "dialog [name=parameter-cities]")
    pages.sees("How many cities", "dialog")
    pages.browser.write("[name=parameter-cities]", "3")
    pages.browser.write("[name=parameter-pace]", "0.001")
    pages.browser.click("dialog .primary")
    pages.at("#/runs/ForecastFlow/")
    pages.sees("succeeded", ".big-state")
    pages.sees("cities 3", ".parameters")


def test_a_wrong_value_in_a_form_is_told(pages, good):
    """The server says which, and the form stays."""
    pages.show("runs?flow=ForecastFlow&do=run", "dialog [name=parameter-cities]")
    pages.browser.write("[name=parameter-cities]", "many")
    pages.browser.click("dialog .primary")
    pages.sees("cities", "dialog .notice.failed")
    complaints = pages.browser.complaints()  # of the browser itself, on the answer's status
    assert all("Failed to load resource" in each for each in complaints)


def test_tags_are_changed(pages, good):
    """One is added; the list can be asked for it."""
    pages.show(f"runs/{good}?do=tags", "dialog input")
    pages.browser.write("dialog input", "looked-at")
    pages.browser.click("dialog .primary")
    pages.sees("looked-at", ".head")
    pages.browser.click(".head .tag")
    pages.at("tag=looked-at")
    pages.sees(good.split("/")[1])


# --- the command, the keyboard, narrow and dark pages, cut connections -------------------------


def test_the_address_that_is_printed_opens_the_page(pages, good, store):
    """Its token becomes a cookie, and is not left in the address."""
    command = [sys.executable, "-m", "asyncflow", "ui", "--store", store, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            address = server.stdout.readline().split()[-1]
            pages.browser.open("about:blank")
            pages.browser.open(f"{address}#/runs/{good}")
            wait_until(lambda: pages.browser.count("a.node"), "the run is shown")
            assert "token" not in pages.browser.run("return location.href")
            pages.browser.open(f"{pages.url}#/runs")
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(SECONDS)


def test_the_keyboard_leads_everywhere(pages, good):
    """Search, rows, opening, tabs, the list of keys, and the way back up."""
    pages.show("runs?flow=ForecastFlow", ".run-row")
    pages.browser.press("?")
    pages.sees("next page of a list", "dialog")
    pages.browser.press(ESCAPE)
    wait_until(lambda: not pages.browser.count("dialog"), "the list is closed")
    pages.browser.press("?")
    pages.sees("next page of a list", "dialog")
    pages.browser.run("location.hash = '#/runs'")
    pages.at("#/runs")
    wait_until(lambda: not pages.browser.count("dialog"), "another place has closed the list")
    pages.show("runs?flow=ForecastFlow", ".run-row")
    pages.browser.press("/")
    assert pages.browser.run("return document.activeElement.matches('[data-search]')")
    pages.browser.press(DOWN, "j")
    assert pages.browser.run("return document.activeElement.matches('.run-row')")
    pages.browser.press("k", ENTER)
    pages.at("#/runs/ForecastFlow/")
    wait_until(lambda: pages.browser.count("[data-tab]"), "the run is open")
    pages.browser.press("3")
    pages.at("view=tasks")
    pages.browser.press(ESCAPE)
    pages.at("#/runs?flow=ForecastFlow")


def test_a_narrow_page_shows_all_without_scrolling_sideways(pages, good, bad):
    """At 360 pixels, each view."""
    task = pages.get(f"runs/{bad}/tasks?state=failed")["tasks"][0]["pathspec"]
    views = [f"runs/{good}?view={view}" for view in VIEWS]
    places = ["runs", *views, f"runs/{task}", f"runs/{bad}?do=resume", f"diff?a={good}&b={bad}"]
    pages.browser.resize(360, 740)
    try:
        for place in places:
            pages.show(place)
            wide = (
                "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
            )
            assert pages.browser.run(wide) <= 0, place
            wait_until(lambda: pages.browser.run(TAB_IS_SEEN), "the current tab is seen")
    finally:
        pages.browser.resize(1280, 900)


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_text_can_be_read_in(pages, bad, scheme):
    """Every text on the page has the contrast that WCAG's AA asks for: 4.5, large ones 3."""
    pages.browser.prefer(scheme)
    try:
        for place in ("runs", f"runs/{bad}", f"runs/{bad}?view=tasks", f"runs/{bad}?view=log"):
            pages.show(place)
            assert pages.browser.run(FAINT_TEXTS) == [], place
    finally:
        pages.browser.prefer("light")


def test_a_cut_connection_misses_no_line_and_repeats_none(pages):
    """The page reconnects behind the last event that has come."""
    run = pages.start("WaitingFlow", tasks="1")
    try:
        pages.show(f"runs/{run}?view=log", ".log")
        for _ in range(3):
            wait_for_ticks(pages.browser, last_tick(pages.browser) + 3)
            assert pages.way.cut() >= 1
        numbers = ticks(pages.browser)
        pages.browser.complaints()  # of the browser itself, on the connections that were cut
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    finally:
        pages.post(f"runs/{run}/cancel", reason="")


def ticks(browser):
    """The numbers of the ticks that the log shows."""
    lines = browser.shown(".log").splitlines()
    return [int(line.split()[1]) for line in lines if line.startswith("tick ")]


def wait_for_ticks(browser, number):
    """Wait until the log shows a tick of this number, or a later one."""
    wait_until(lambda: last_tick(browser) >= number, f"tick {number} is seen")


def last_tick(browser):
    """The last of them."""
    return (ticks(browser) or [-1])[-1]
