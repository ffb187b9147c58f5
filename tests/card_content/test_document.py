"""Documents of cards: what is packed is read, and what is hostile is refused or dropped."""

from __future__ import annotations

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncflow.card_content.component import Images, part_of
from asyncflow.card_content.document import (
    MOST_DOCUMENT_BYTES,
    Document,
    pack_document,
    read_document,
)
from asyncflow.card_content.drawing import drawable
from asyncflow.card_content.html import card_page
from asyncflow.card_content.options import card_options
from asyncflow.cards import Artifact, Markdown
from asyncflow.errors import RecordError

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 63) - 1)
    | st.floats()
    | st.text()
    | st.binary(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=20,
)
KINDS = [
    "text",
    "markdown",
    "table",
    "image",
    "vega",
    "progress",
    "value",
    "json",
    "timeline",
    "group",
    "error",
    "code",
    "other",
]
FIELDS = ["text", "rows", "headers", "image", "mime", "spec", "value", "max", "parts", "events"]
hostile = st.fixed_dictionaries(
    {"kind": st.sampled_from(KINDS)},
    optional=dict.fromkeys([*FIELDS, "total", "title"], plain),
)


def nothing(name):
    """No image is there."""
    raise KeyError(name)


@given(st.lists(hostile, max_size=4), plain)
def test_whatever_a_document_holds_can_be_drawn_or_is_refused(parts, other):
    """Each part has the fields of its kind alone, in the right types."""
    data = msgpack.packb({"v": 1, "type": other, "parts": parts, "title": other, "html": other})
    document = read_document(data)
    drawn = drawable(document.parts, nothing)
    assert len(drawn) == len(parts)
    card = {
        "version": 1,
        "title": document.title,
        "pathspec": "F/1/s/1",
        "html": None,
        "parts": drawn,
    }
    page = card_page(card)
    assert page.count("</script") == 2 + 3 * ("vega" in {part["kind"] for part in drawn})


@given(st.binary(max_size=200))
def test_bytes_that_are_no_document_are_refused(data):
    """With the error of a damaged record."""
    with pytest.raises(RecordError):
        read_document(data)


def test_a_document_of_a_later_version_is_refused():
    """It may mean something else."""
    with pytest.raises(RecordError, match="later version"):
        read_document(msgpack.packb({"v": 2, "type": "x", "parts": []}))
    deep: list[object] = []
    for _ in range(2000):
        deep = [deep]
    with pytest.raises(RecordError):
        read_document(b"\x91" * 5000 + msgpack.packb(1))


def test_a_document_has_at_most_a_megabyte():
    """What does not fit is left out, and that is said."""
    parts = [part_of(Artifact("x" * 60_000, compressed=False), Images()) for _ in range(40)]
    packed = pack_document(Document("blank", parts))
    assert len(packed) <= MOST_DOCUMENT_BYTES
    *kept, last = read_document(packed).parts
    assert len(kept) == 17
    assert "23 components are left out" in last["title"]
    with pytest.raises(RecordError):
        read_document(packed + bytes(MOST_DOCUMENT_BYTES))


def test_half_a_surrogate_pair_can_be_stored():
    """It is escaped, as in artifacts' names."""
    part = part_of(Markdown("\udc80"), Images())
    assert "\\udc80" in read_document(pack_document(Document("x", [part]))).parts[0]["text"]


def test_text_of_a_card_ends_no_script():
    """However it looks, the page has the same elements."""
    text = "</script><script>alert(1)</script><!--"
    part = part_of(Markdown(text), Images())
    (drawn,) = drawable([part], nothing)
    page = card_page({"title": text, "pathspec": "F/1/s/1", "html": None, "parts": [drawn]})
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page  # the title
    assert "unsafe" not in page.partition("</head>")[0]


@pytest.mark.parametrize(
    ("recorded", "labels"),
    [
        (None, []),
        ([{}], ["default"]),
        ([{"type": 7, "id": 7, "timeout": "x", "options": 3}], ["default"]),
        ([{"id": "a"}, {"id": "a"}, {}, {}], ["default", "default", "default a", "default a"]),
        ("nonsense", []),
        ([7, None], ["default", "default"]),
    ],
)
def test_what_an_older_version_recorded_reads_as_cards(recorded, labels):
    """Whatever was given then, the names are unique, and the order is that of the decorators."""
    found = card_options(recorded)
    assert [each.label for each in found] == labels
    assert len({each.name for each in found}) == len(labels)
