"""A run of 100,000 tasks in a real browser: everything can be looked at, and little is drawn."""

from __future__ import annotations

import pytest

from asyncflow.flow.graph import Graph
from asyncflow.flow.node import Node
from tests.support.browser import wait_until
from tests.support.page_in_browser import page_in_browser
from tests.support.page_scripts import PAINTED_WIDE
from tests.support.written_runs import RunWriter

pytestmark = pytest.mark.slow  # writing the events of 100,000 tasks takes half a minute

TASKS = 100_000
MOST_ELEMENTS = 2_000
MOST_BYTES = 200_000
FAILED = 77_777
RUN = "Wide/1800000000000000"
GRAPH = Graph(
    "Wide",
    [
        Node("start", ("work",), foreach="items"),
        Node("work", ("join",)),
        Node("join", ("end",), is_join=True),
        Node("end"),
    ],
)


def write_wide_run(store):
    """A foreach of which one task has failed once."""
    run = RunWriter(store, "Wide", "1800000000000000", GRAPH)
    run.succeed(run.start("start"), fanout=TASKS)
    for index in range(TASKS):
        task = run.start("work", (index,))
        if index == FAILED:
            run.log(task, b"the needle in the haystack\n")
            run.fail(task, "once", will_retry=True)
            run.start("work", (index,), task)
        run.succeed(task)
    run.run("join")
    run.run("end")
    run.finish()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """A server and a browser."""
    folder = tmp_path_factory.mktemp("wide")
    write_wide_run(folder / "store")
    with page_in_browser(folder) as pages:
        yield pages


def is_bounded(pages):
    """Whether the page has few elements, and no answer was large."""
    sizes = pages.browser.run(
        "return performance.getEntriesByType('resource').map((each) => each.decodedBodySize)"
    )
    return pages.browser.count("*") <= MOST_ELEMENTS and max(sizes) <= MOST_BYTES


def test_the_overview_counts_them(pages):
    """From the index, without a pass over the events."""
    pages.show(f"runs/{RUN}", "a.node")
    pages.sees("100\u202f003", ".whole")
    pages.sees("100\u202f000 / 100\u202f000", "a.node[data-step=work]")
    assert is_bounded(pages)


def test_what_the_tasks_took_is_read_after_the_first_screen(pages):
    """The run has no file of times, so its journal is read."""
    pages.show(f"runs/{RUN}", "a.node")
    row = "return document.querySelector('.steps tbody tr:nth-child(2) td.wide-only').innerText"
    wait_until(lambda: any(map(str.isdigit, pages.browser.run(row))), "what 100,000 tasks took")
    assert is_bounded(pages)


def test_the_timeline_draws_how_many_ran(pages):
    """Too many for bars; a part of it is closer."""
    pages.show(f"runs/{RUN}?view=timeline", "canvas")
    pages.sees("too many for bars", ".legend")
    wait_until(lambda: pages.browser.run(PAINTED_WIDE), "numbers are drawn")
    pages.browser.run("document.querySelector('canvas').focus()")
    for _ in range(12):
        before = pages.place()
        pages.browser.press("+")
        pages.leaves(before)
    wait_until(lambda: "too many" not in pages.browser.shown(".legend"), "bars are drawn")
    assert is_bounded(pages)


def test_any_task_is_found(pages):
    """By its index; only what is seen of a page of tasks is in the document."""
    pages.show(f"runs/{RUN}?view=tasks", ".task-row[data-row]")
    assert is_bounded(pages)
    pages.browser.run("scrollTo(0, document.documentElement.scrollHeight)")
    wait_until(lambda: pages.browser.count("[data-next]"), "there is a next page")
    assert is_bounded(pages)
    pages.browser.write("[data-search]", f"[{FAILED}]")
    wait_until(lambda: pages.browser.count(".task-row[data-row]") == 1, "one task is left")
    pages.sees("attempt 1", ".task-row[data-row]")
    pages.browser.click(".task-row[data-row]")
    pages.sees(f"[{FAILED}]", "h1")


def test_a_line_is_found_in_the_log(pages):
    """The server searches."""
    pages.show(f"runs/{RUN}?view=log&find=needle", ".log mark")
    pages.sees("in the haystack", ".log")
    assert is_bounded(pages)


def test_events_come_in_parts(pages):
    """The next one by a key."""
    pages.show(f"runs/{RUN}?view=events", ".events li")
    assert is_bounded(pages)
    pages.browser.press("n")
    pages.at("after=")
    assert is_bounded(pages)
