"""The colours of a program's output, as the page's script reads them: in a real browser."""

from __future__ import annotations

import pytest

from tests.support.page_in_browser import page_in_browser

pytestmark = pytest.mark.long  # a server and a browser

READ = """
const name = [...document.scripts].map((each) => each.src).find((each) => each.endsWith('app.js'));
return import(new URL('colours.js', name)).then((found) => found.coloured(arguments[0], 100));
"""
RED = ["x", "", "rgb(255 0 7)"]


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """A server and a browser that shows its page."""
    with page_in_browser(tmp_path_factory.mktemp("colours")) as pages:
        pages.show("runs")
        yield pages


@pytest.mark.parametrize(
    ("codes", "parts"),
    [
        ("38;2;255;0;7", [RED]),
        ("38:2::255:0:7", [RED]),
        ("38:2:1:255:0:7", [RED]),
        ("38:2:255:0:7", [RED]),
        ("38:2::255:0:7:0:1:0", [RED]),
        ("38:5:9", [["x", "ansi-1", ""]]),
        ("38;5;9;1", [["x", "ansi-1 ansi-bold", ""]]),
        ("38:5:9;1", [["x", "ansi-1 ansi-bold", ""]]),
        ("48;5;1", [["x", "", ""]]),
        ("48:2::1:2:3;4", [["x", "ansi-underline", ""]]),
        ("58;5;1", [["x", "", ""]]),
        ("58:2::1:1:1", [["x", "", ""]]),
        ("4:3", [["x", "ansi-underline", ""]]),
        ("4;4:0", [["x", "", ""]]),
        (";".join(["1:2:3:4"] * 1000), [["x", "ansi-bold", ""]]),
    ],
)
def test_a_colon_joins_a_code_with_what_belongs_to_it(pages, codes, parts):
    """And a semicolon begins the next code, but for colours, of which numbers may follow."""
    assert pages.browser.run(READ, f"\x1b[{codes}mx") == parts
