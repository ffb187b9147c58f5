"""Previews of stored values: right for what is known, bounded and harmless for everything else."""

from __future__ import annotations

import datetime as dt
import decimal
import os
import pickle
import pickletools
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncflow.client.previews import PreviewLimits, preview_of
from asyncflow.codec import ItemsEncoder, encode
from asyncflow.errors import ArtifactMissingError
from asyncflow.values import ArtifactRef, Encoding
from tests.support.call_counts import counted_calls
from tests.support.previewing import LIMITS, InMemoryReader, of, preview

leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False)
plain = st.recursive(
    leaves | st.text(max_size=20) | st.binary(max_size=20),
    lambda inner: (
        st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(max_size=5), inner)
    ),
    max_leaves=8,
)


@given(plain)
def test_a_plain_value_shows_as_python_shows_it(value):
    """Whatever it is made of, as long as there is room."""
    shown = of(value, PreviewLimits(characters=100_000, items=1_000, depth=100, seconds=30))
    assert shown["text"] == repr(value)
    assert not shown["cut"]


@pytest.mark.parametrize("window", [9, 64])
def test_a_pickle_that_is_read_in_small_windows_shows_the_same(monkeypatch, window):
    """Wherever one window ends and the next begins."""
    limits = PreviewLimits(characters=100_000, items=1_000, depth=100, seconds=30)
    opcodes = "asyncflow.client.previews.pickle_opcodes"

    @given(plain | st.lists(st.text(min_size=50, max_size=400), max_size=5))
    def shows_the_same(value):
        whole = of(value, limits)
        with monkeypatch.context() as changed:
            changed.setattr(f"{opcodes}._FIRST_WINDOW", window)
            changed.setattr(f"{opcodes}._WINDOW_BEHIND", window)
            assert of(value, limits) == whole

    shows_the_same()


@given(plain, st.integers(1, 60))
def test_a_text_is_never_longer_than_it_may_be(value, characters):
    """But for the mark that says that something is missing."""
    shown = of(value, PreviewLimits(characters=characters))
    assert len(shown["text"]) <= characters + 1 or shown["type"] == "bytes"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({1}, "{1}"),
        (set(), "set()"),
        (frozenset([1]), "frozenset({1})"),
        (dt.datetime(2026, 11, 27, 8, 30, 0, 5), "datetime(2026-11-27 08:30:00.000005)"),  # noqa: DTZ001 - as it is stored
        (dt.date(2026, 11, 27), "date(2026-11-27)"),
        (decimal.Decimal("1.50"), "Decimal('1.50')"),
        (Path("/a/b"), "Path('/a/b')"),
        (range(3), "range(0, 3, 1)"),
        (1 << 3000, "<int of 3001 bits>"),
        (np.float64(2.5), "2.5"),
    ],
)
def test_what_is_known_shows_in_short(value, text):
    """Sets, times and numbers as people write them."""
    assert of(value)["text"] == text


def test_an_object_shows_its_class_and_state():
    """Of which nothing is imported."""
    data = pickle.PROTO + b"\x02csomewhere\nModel\n)\x81}X\x05\x00\x00\x00depthK\x03sb."
    shown = preview(data)
    assert shown["text"] == "<somewhere.Model {'depth': 3}>"
    assert "somewhere" not in sys.modules


@pytest.mark.parametrize("order", ["C", "F"])
def test_an_array_shows_its_shape_type_and_first_values(order):
    """Small ones lie in the pickle, large ones beside it."""
    shown = of(np.ones((30, 100), order=order))
    assert (shown["kind"], shown["shape"], shown["dtype"]) == ("array", [30, 100], "float64")
    assert shown["text"].startswith("[1, 1, 1")
    small = of(np.array(["2020-01-01"], dtype="M8[D]"))
    assert (small["dtype"], small["text"]) == ("datetime64[D]", "[2020-01-01 00:00:00]")


FRAME = pd.DataFrame(
    {
        "number": [1, 2],
        "text": ["x", "y"],
        "when": pd.to_datetime(["2020-01-01", "2021-01-01"]),
        "true": [True, False],
        "other": [5, 6],
    }
)


def test_a_frame_shows_its_columns_and_first_rows():
    """Whatever the blocks are in which pandas keeps them."""
    shown = of(FRAME)
    assert [column["name"] for column in shown["columns"]] == list(FRAME.columns)
    assert shown["rows"] == [
        ["1", "'x'", "2020-01-01 00:00:00", "True", "5"],
        ["2", "'y'", "2021-01-01 00:00:00", "False", "6"],
    ]
    assert shown["length"] == 2


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_structured_array_shows_its_fields_and_first_rows(order):
    """Also if its fields do not lie one behind the other."""
    kind = np.dtype(
        {
            "names": ["name", "n", "x", "day"],
            "formats": ["U5", "<i4", ">f8", "M8[D]"],
            "offsets": [0, 24, 40, 32],
            "itemsize": 56,
        }
    )
    value = np.zeros(1000, dtype=kind, order=order)
    value["name"][:2], value["n"], value["x"][1] = ["one", "two"], np.arange(1000), 0.5
    shown = of(value)
    assert (shown["kind"], shown["type"], shown["length"]) == ("table", "numpy.ndarray", 1000)
    assert [each["name"] for each in shown["columns"]] == ["name", "n", "x", "day"]
    assert [each["dtype"] for each in shown["columns"]][1:3] == ["int32", "float64"]
    assert shown["rows"][1] == ["'two'", "1", "0.5", "1970-01-01 00:00:00"]
    assert len(shown["rows"]) == LIMITS.rows


def test_fields_of_fields_are_not_looked_into():
    """The others show their values."""
    value = np.zeros(3, dtype=[("at", [("x", "f4"), ("y", "f4")]), ("n", "i4")])
    shown = of(value)
    assert shown["rows"] == [["…", "0"]] * 3


def test_a_large_frame_is_read_in_small_parts():
    """Its first rows, and not its 8 MB."""
    encoded = encode(pd.DataFrame(np.zeros((100_000, 10))))
    data = b"".join(map(bytes, encoded.chunks))
    ref = ArtifactRef(0, int(encoded.encoding), "", len(data), b"", "", 0, b"")
    reader = InMemoryReader(data)
    shown, _ = preview_of(reader, ref, "x", LIMITS)
    assert shown["length"] == 100_000
    assert reader.read < 100_000


def test_a_list_for_a_foreach_shows_its_items():
    """The first ones, read one by one."""
    encoder = ItemsEncoder(list)
    batches = [batch for number in range(100) for batch in encoder.add({"i": number})]
    data = b"".join([*(piece for batch in batches for piece in batch), *encoder.finish()])
    shown = preview(data, Encoding.ITEMS)
    assert (shown["kind"], shown["length"], shown["cut"]) == ("items", 100, True)
    assert shown["text"].startswith("[{'i': 0}, {'i': 1}")


def test_a_picture_is_known_by_its_beginning():
    """With its size."""
    png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x10\0\0\0\x20"
    assert of(png) == {"kind": "image", "format": "png", "width": 16, "height": 32}


def test_a_value_that_contains_itself_ends():
    """At the depth that may be shown."""
    value: list[object] = [1]
    value.append(value)
    assert of(value)["cut"]


def test_a_value_that_is_gone_says_so():
    """In words, and not as an error."""

    class Gone:
        def read_range(self, *_):
            raise ArtifactMissingError("the file is gone", artifact="x", pathspec="x")

    ref = ArtifactRef(2, 0, "list", 5, b"", "", 0, b"")
    shown, _ = preview_of(Gone(), ref, "x", LIMITS)
    assert shown["kind"] == "unknown"
    assert "the file is gone" in shown["text"]


# --- bytes of any kind --------------------------------------------------------------------------

OPCODES = [each.code.encode("latin-1") for each in pickletools.opcodes]


@given(
    st.lists(st.sampled_from(OPCODES) | st.binary(max_size=9), max_size=60),
    st.sampled_from(Encoding),
)
def test_any_bytes_have_a_preview(pieces, encoding):
    """Opcodes in any order, in any encoding: never an error, and nothing is called."""
    shown = preview(b"".join(pieces) + b".", encoding)
    assert shown["kind"] in {"value", "array", "table", "image", "items", "unknown"}
    assert len(str(shown)) < 20_000


@given(st.binary(max_size=300), st.sampled_from([FRAME, np.arange(600), {"a": [1, 2]}]), st.data())
def test_a_changed_value_has_a_preview(noise, value, data):
    """Bytes of a real value, some of which are others now."""
    encoded = encode(value)
    stored = bytearray(b"".join(map(bytes, encoded.chunks)))
    at = data.draw(st.integers(0, len(stored)))
    stored[at : at + len(noise)] = noise
    shown = preview(bytes(stored), encoded.encoding)
    assert len(str(shown)) < 50_000


class Runs:
    """Would make a folder if it were unpickled."""

    def __reduce__(self):
        return os.mkdir, ("touched",)


def test_nothing_is_called(tmp_path, monkeypatch):
    """What a pickle would call is told by its name."""
    monkeypatch.chdir(tmp_path)
    shown = preview(pickle.dumps(Runs()))
    assert "mkdir('touched')" in shown["text"]
    assert list(tmp_path.iterdir()) == []


def doubling(count):
    """A list of two of the list before, as often: of 2 to the power of `count` items."""
    value: list[object] = ["x" * 50]
    for _ in range(count):
        value = [value, value]
    return value


@pytest.mark.parametrize(
    "data",
    [
        pickle.dumps(doubling(60)),
        b"\x80\x05" + b"]" * 3_000_000,
        b"\x80\x05" + b"(" * 3_000_000,
        b"\x80\x05]" + b"2" * 3_000_000,
        b"\x80\x05](" + b"K\x01" * 1_000_000 + b"e.",
        b"\x80\x05\x8d" + b"\xff" * 8 + b"x" * 100,
        b"\x80\x05\x8b\xff\xff\xff\x7f" + b"x" * 100,
        b"\x80\x05I" + b"9" * 3_000_000 + b"\n.",
        b"\x80\x05X\xff\xff\xff\xff" + b"x" * 3_000_000,
        b"\x80\x05r\xff\xff\xff\xff.",
        b"AFB1" + b"\xff" * 100,
    ],
    ids=[
        "doubling",
        "lists",
        "marks",
        "dup",
        "many",
        "text",
        "long",
        "digits",
        "cut",
        "memo",
        "buffers",
    ],
)
@pytest.mark.parametrize("encoding", [Encoding.PICKLE, Encoding.BUFFERS])
def test_a_bomb_costs_little(data, encoding):
    """Neither time nor memory grows with what the bytes claim."""
    tracemalloc.start()
    shown = preview(data, encoding)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    with counted_calls() as calls:
        assert preview(data, encoding) == shown
    assert most < 20_000_000
    assert calls[0] < 100_000  # 40,000 at most
