"""Each component as the plain data that is stored, and as it is drawn."""

from __future__ import annotations

import io
import json
from typing import Any, cast

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from asyncflow.card_content.component import Images, part_of
from asyncflow.card_content.document import Document, pack_document, read_document
from asyncflow.card_content.drawing import drawable, uses_vega
from asyncflow.cards import (
    Artifact,
    CardComponent,
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
    YAMLViewer,
)

PNG = b"\x89PNG\r\n\x1a\n" + bytes(2000)


def drawn(component):
    """The component as it is drawn, after it was stored and read."""
    images = Images()
    part = part_of(component, images)
    document = read_document(pack_document(Document("blank", [part])))
    (found,) = drawable(document.parts, images.by_name.__getitem__)
    assert json.loads(json.dumps(found)) == found
    return found


def error_of(component):
    """The error that stands in the place of a component."""
    found = drawn(component)
    assert found["kind"] == "error"
    return found["title"] + found["text"]


# --- text -------------------------------------------------------------------------------------


def test_markdown_becomes_a_tree_of_few_kinds():
    """HTML in it is text, and a link leads to the web only."""
    text = """# Title

    - **bold** `code`
    - [there](https://example.org) [bad](javascript:alert(1))

    <script>alert(1)</script>

    ```python
    x = 1
    ```
    """
    tree = drawn(Markdown(text))["tree"]
    assert tree[0] == ["h1", ["Title"]]
    kinds = str(tree)
    assert "['a', ['there'], {'href': 'https://example.org'}]" in kinds
    assert "javascript" in kinds  # as text
    assert "{'href': 'javascript" not in kinds
    assert "<script>alert(1)</script>" in kinds
    assert ["span", ["1"], {"code": "n"}] in tree[-1][1]


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("\n        # A\n        b", [["h1", ["A"]], ["p", ["b"]]]),
        ("# A\n        b", [["h1", ["A"]], ["p", ["b"]]]),
        (
            "- a\n    - b",
            [["ul", [["li", [["span", ["a"]], ["ul", [["li", [["span", ["b"]]]]]]]]]]],
        ),
        (None, []),
        (
            "![x](http://example.org/x.png)",
            [["p", [["a", ["x"], {"href": "http://example.org/x.png"}]]]],
        ),
        ("a  \nb", [["p", ["a", ["br", []], "b"]]]),
        (
            "|a|\n|-:|\n|1|",
            [
                [
                    "table",
                    [
                        ["thead", [["tr", [["th", ["a"], {"align": "right"}]]]]],
                        ["tbody", [["tr", [["td", ["1"], {"align": "right"}]]]]],
                    ],
                ]
            ],
        ),
    ],
)
def test_markdown_within_indented_code(text, tree):
    """The indentation of the code around it is no Markdown; that of a list is."""
    assert drawn(Markdown(text))["tree"] == tree


def test_an_artifact_is_shown_by_its_repr_cut_where_it_is_long():
    """In full if `compressed` is false."""
    found = drawn(Artifact({"a": list(range(1000))}, "numbers"))
    assert (found["name"], found["type"]) == ("numbers", "dict")
    assert found["text"].endswith("98, 99, ...]}")
    assert drawn(Artifact(list(range(300)), compressed=False))["text"].endswith("299]")
    assert len(drawn(Artifact("x" * 10**6, compressed=False))["text"]) < 70_000


def test_an_error_has_the_traceback_of_its_exception():
    """Text is shown as it is."""
    try:
        int("no rows")
    except ValueError as error:
        found = drawn(Error(error, "It failed"))
    assert found["title"] == "It failed"
    assert found["text"].startswith("ValueError: invalid literal")
    assert 'int("no rows")' in found["traceback"]
    assert drawn(Error("what", None))["text"] == "what"


def test_code_is_that_of_a_function_or_text():
    """With its colours."""
    found = drawn(PythonCode(error_of))
    assert found["text"].startswith("def error_of(component):")
    assert found["tokens"][0] == ["k", "def"]
    assert "".join(text for _, text in found["tokens"]) == found["text"]
    assert drawn(PythonCode(code_string="  x = 1\n"))["text"] == "x = 1"
    assert "takes a function" in error_of(PythonCode())


def test_data_is_json_or_yaml():
    """What JSON cannot say is text; text that is JSON is read."""
    found = drawn(JSONViewer({"a": object, "b": [1]}, title="T", max_height="300px"))
    assert json.loads(found["text"]) == {"a": str(object), "b": [1]}
    assert (found["title"], found["height"], found["folds"], found["copies"]) == (
        "T",
        "300px",
        True,
        True,
    )
    assert json.loads(drawn(JSONViewer('{"a": 1}', collapsible=False))["text"]) == {"a": 1}
    assert json.loads(drawn(JSONViewer("no json"))["text"]) == "no json"
    assert "a" in drawn(YAMLViewer({"a": [1, 2]}))["text"]
    viewer = JSONViewer(1)
    viewer.update(2)
    assert drawn(viewer)["text"] == "2"


# --- numbers ----------------------------------------------------------------------------------


def test_a_progress_bar_is_updated():
    """The value, and what is to be said beside it."""
    bar = ProgressBar(max=10, label="rows", unit="rows")
    bar.update(4, "2/s")
    bar.update(cast("Any", np.int64(5)))
    assert drawn(bar) == {
        "kind": "progress",
        "max": 10,
        "value": 5,
        "label": "rows",
        "unit": "rows",
        "details": "2/s",
    }


def test_a_value_box_keeps_what_is_not_updated():
    """Whatever its value is."""
    box = ValueBox("Loss", 0.5, theme="success", change_indicator="down")
    box.update(value=0.25)
    assert drawn(box) == {
        "kind": "value",
        "title": "Loss",
        "value": 0.25,
        "theme": "success",
        "change": "down",
        "subtitle": "",
    }
    assert drawn(ValueBox("x" * 10_000, float("nan")))["value"] == "nan"


def test_a_timeline_has_the_last_event_on_top_and_counts_the_others():
    """With other components to be unfolded."""
    timeline = EventsTimeline("Agent", max_events=2)
    for number in range(3):
        timeline.update(
            {"n": number, "by": "me"}, style_theme="info", payloads={"code": Markdown(str(number))}
        )
    timeline.update({"n": 3}, finished=True)
    found = drawn(timeline)
    assert (found["total"], found["finished"], len(found["events"])) == (4, True, 2)
    assert [each["facts"][0] for each in found["events"]] == [["n", 3], ["n", 2]]
    assert found["events"][1]["payloads"] == [
        ["code", {"kind": "markdown", "tree": [["p", ["2"]]]}]
    ]
    assert timeline.get_stats()["total_events"] == 4


# --- tables -----------------------------------------------------------------------------------


def test_a_table_has_numbers_text_and_components():
    """Numbers stay numbers; what is none is its text."""
    found = drawn(Table([["a", 1, 2.5, None, np.float64(0.5), Markdown("*x*")]], headers=["A", 2]))
    assert found["headers"] == ["A", "2"]
    (row,) = found["rows"]
    assert row == ["a", 1, 2.5, "None", 0.5, {"kind": "markdown", "tree": [["p", [["em", ["x"]]]]]}]


def test_a_long_table_is_cut_and_says_how_long_it_is():
    """In rows and columns."""
    found = drawn(Table([[number] * 120 for number in range(3000)]))
    assert found["total"] == 3000
    assert len(found["rows"]) <= 1000
    assert len(found["rows"][0]) == 100
    assert error_of(Table([[1], 7])).startswith("Table")  # type: ignore[list-item] # a row that is none
    assert drawn(Table())["rows"] == []


FRAME = {"n": [1, 2, 3], "x": [0.5, None, 1.5], "s": ["a", "b", None]}


@pytest.mark.parametrize("make", [pd.DataFrame, pl.DataFrame, pa.table])
def test_a_table_of_a_data_frame(make):
    """Of pandas, polars or Arrow."""
    found = drawn(Table.from_dataframe(make(FRAME)))
    assert found["headers"] == ["n", "x", "s"]
    assert [row[0] for row in found["rows"]] == [1, 2, 3]
    assert found["rows"][0][1:] == [0.5, "a"]


def test_the_index_of_a_data_frame_is_a_column_unless_it_only_counts():
    """Several levels are one text."""
    frame = pd.DataFrame({"v": [1, 2]}, index=pd.MultiIndex.from_tuples([("a", 1), ("b", 2)]))
    found = drawn(Table.from_dataframe(frame))
    assert found["rows"] == [["a · 1", 1], ["b · 2", 2]]
    long = drawn(Table.from_dataframe(pd.DataFrame({"v": range(5000)})))
    assert (len(long["rows"]), long["total"]) == (100, 5000)
    whole = drawn(Table.from_dataframe(pd.DataFrame({"v": range(5000)}), truncate=False))
    assert (len(whole["rows"]), whole["total"]) == (1000, 5000)


# --- images and charts ------------------------------------------------------------------------


class FakeFigure:
    """What `Image.from_matplotlib` needs of a figure."""

    def savefig(self, file, **options):
        assert options["format"] == "png"
        file.write(PNG)


class FakeAxes:
    """The axes of it."""

    def get_figure(self):
        return FakeFigure()


class FakePicture:
    """What `Image.from_pil_image` needs of an image of PIL's."""

    def save(self, file, **options):
        assert options["format"] == "PNG"
        file.write(PNG)


def test_an_image_is_of_bytes_a_figure_or_another_library():
    """Or text with the bytes; and can be replaced."""
    url = drawn(Image(PNG, "a label"))
    assert url["url"].startswith("data:image/png;base64,iVBOR")
    assert url["label"] == "a label"
    for image in (
        Image.from_matplotlib(FakeFigure()),
        Image.from_matplotlib(FakeAxes()),
        Image.from_pil_image(FakePicture()),
        Image(url["url"]),
    ):
        assert drawn(image)["url"] == url["url"]
    image = Image(b"GIF89a")
    assert drawn(image)["url"].startswith("data:image/gif;base64,")
    image.update(FakeAxes(), "other")
    assert drawn(image) == {"kind": "image", "url": url["url"], "label": "other"}
    fixed = Image(PNG, disable_updates=True)
    fixed.update(b"GIF89a")
    assert drawn(fixed)["url"] == url["url"]


@pytest.mark.parametrize(
    "image",
    [
        Image(b"no image"),
        Image(),
        Image("http://example.org/x.png"),
        Image.from_matplotlib(7),
        Image.from_pil_image(7),
        Image(cast("Any", io.BytesIO())),
    ],
)
def test_what_is_no_image_is_said(image):
    """On the card."""
    assert error_of(image)


def test_an_image_that_is_too_large_is_said():
    """As well as too many."""
    assert "16 MB" in error_of(Image(b"GIF89a" + bytes(17 << 20)))


class FakeChart:
    """What there is of a chart of Altair."""

    def to_dict(self):
        return {
            "mark": "bar",
            "data": {"values": [{"a": np.int64(1), "t": pd.Timestamp(2026, 1, 1)}]},
        }


def test_a_chart_is_a_specification_or_one_of_altair():
    """Values of NumPy and pandas are numbers and text; it is as wide as there is room."""
    spec = drawn(VegaChart.from_altair_chart(FakeChart()))["spec"]
    assert spec["data"]["values"] == [{"a": 1, "t": "2026-01-01T00:00:00"}]
    assert spec["width"] == "container"
    chart = VegaChart({"mark": "bar"}, show_controls=True)
    chart.update({"hconcat": [], "data": {"values": list(range(5000))}})
    found = drawn(chart)
    assert found["controls"] is True
    assert "width" not in found["spec"]
    assert uses_vega([{"kind": "table", "rows": [[1, found]]}])
    assert not uses_vega([{"kind": "text", "text": "vega"}])
    assert "specification" in error_of(VegaChart(7))


# --- components of one's own ------------------------------------------------------------------


class Own(CardComponent):
    """Returns what it is given."""

    def __init__(self, what):
        self._what = what

    def render(self):
        return self._what


def test_a_component_of_ones_own_renders_text_data_or_components():
    """Nested, but not without end."""
    assert drawn(Own("<b>text</b>")) == {"kind": "text", "text": "<b>text</b>"}
    assert json.loads(drawn(Own({"a": 1}))["text"]) == {"a": 1}
    group = drawn(Own([Markdown("a"), "b", None]))
    assert [part["kind"] for part in group["parts"]] == ["markdown", "text", "group"]
    endless = Own(None)
    endless._what = endless
    assert "nested too deep" in error_of(endless)
    assert "has no render" in error_of(CardComponent())
    assert "is no component" in error_of(Own(7))
