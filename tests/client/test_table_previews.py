"""Previews of tables: each type of column of Arrow, Polars and pandas, and streams that lie."""

from __future__ import annotations

import datetime as dt
import decimal
import pickle
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import ipc

from asyncflow.client.previews import PreviewLimits
from tests.client.polars_pickles.write import frame
from tests.support.call_counts import counted_calls
from tests.support.previewing import LIMITS, InMemoryReader, of, preview

SIX = PreviewLimits(rows=6, seconds=30)
LONG = "a text of more than twelve bytes"
POLARS = Path(__file__).parent / "polars_pickles"
FRAMES = sorted(POLARS.glob("frame-*.pickle"))


def columns(shown):
    """The types and the values of each column of a preview, by its name."""
    assert shown["kind"] == "table", shown
    return {
        each["name"]: (each["dtype"], [row[at] for row in shown["rows"]])
        for at, each in enumerate(shown["columns"])
    }


def frame_of_stream(stream):
    """The pickle of a Polars frame with this stream as its state."""
    name = b"cpolars.dataframe.frame\nDataFrame\n)\x81"
    return pickle.PROTO + b"\x05" + name + b"B" + struct.pack("<I", len(stream)) + stream + b"b."


def stream_of(table, **options):
    """A table in Arrow's stream format."""
    sink = pa.BufferOutputStream()
    with ipc.new_stream(sink, table.schema, options=ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


# --- Polars -------------------------------------------------------------------------------------

POLARS_COLUMNS = {
    "number": ("i64", ["1", "null", "3"]),
    "small": ("u8", ["1", "2", "255"]),
    "real": ("f64", ["0.5", "null", "2"]),
    "text": ("str", ["'x'", repr(LONG), "null"]),
    "true": ("bool", ["True", "False", "null"]),
    "day": ("date", ["2026-11-27", "null", "1969-12-31"]),
    "when": ("datetime[μs]", ["2026-11-27 08:30:00", "null", "null"]),
    "there": ("datetime[μs, Asia/Tokyo]", ["2026-11-26 23:30:00+00:00"] * 3),
    "took": ("duration[μs]", ["1 day, 6:00:00", "null", "null"]),
    "clock": ("time", ["08:30:00", "null", "null"]),
    "money": ("decimal[38,2]", ["-1.50", "null", "20.00"]),
    "bytes": ("binary", [r"b'\x00\x01'", "null", repr(b"z" * 20)]),
    "kind": ("cat", ["'u'", "'v'", "'u'"]),
    "level": ("enum", ["'low'", "'high'", "null"]),
    "list": ("list[i64]", ["[1]", "[2, 3]", "null"]),
    "pair": ("array[i8, 2]", ["[1, 2]", "[3, 4]", "[5, 6]"]),
    "record": ("struct[2]", ["{'x': 1, 'y': 'z'}", "null", f"{{'x': null, 'y': {LONG!r}}}"]),
    "nothing": ("null", ["null", "null", "null"]),
}


@pytest.mark.parametrize(
    "path", [*FRAMES, None], ids=lambda path: path.stem if path else "installed"
)
def test_a_frame_of_polars_shows_its_columns_and_first_rows(path):
    """As three versions of it pickle one that lies in two parts, and as the installed one does."""
    shown = preview(path.read_bytes(), limits=SIX) if path else of(frame(), SIX)
    assert (shown["type"], shown["length"]) == ("polars.DataFrame", 6)
    assert columns(shown) == {
        name: (dtype, 2 * values) for name, (dtype, values) in POLARS_COLUMNS.items()
    }


@pytest.mark.parametrize("path", sorted(POLARS.glob("series-*.pickle")), ids=lambda path: path.stem)
def test_a_series_of_polars_shows_its_first_values(path):
    """Under its name."""
    shown = preview(path.read_bytes())
    assert (shown["type"], shown["length"]) == ("polars.Series", 6)
    assert columns(shown) == {"text": POLARS_COLUMNS["text"]}


def test_of_a_long_stream_only_the_first_rows_are_read():
    """And what describes it, but not its 8 MB."""
    table = pa.table({"a": np.arange(500_000), "b": np.zeros(500_000)})
    data = frame_of_stream(stream_of(table))
    reader = InMemoryReader(data)
    shown = preview(data, reader=reader)
    assert shown["length"] == 500_000
    assert columns(shown)["a"] == ("i64", ["0", "1", "2"])
    assert reader.read < 100_000


def test_of_a_stream_that_is_longer_than_may_be_read_the_first_rows_show():
    """As in the list of a task's artifacts, for which little is read."""
    shown = of(pl.DataFrame({"a": range(20_000)}), PreviewLimits(rows=2, bytes_read=64 << 10))
    assert (shown["kind"], shown["length"]) == ("table", 20_000)
    assert columns(shown) == {"a": ("i64", ["0", "1"])}


def test_long_values_before_others_do_not_hide_these():
    """What is long is left where it lies, and what comes after it is read."""
    shown = of({"first": b"x" * 3_000_000, "second": "y" * 3_000_000, "last": [1, 2]})
    assert shown["text"].endswith("'last': [1, 2]}")
    assert shown["cut"]


def test_series_of_any_numbers_show_as_python_shows_them():
    """Also the widest, beside other columns."""
    wide = pl.DataFrame(
        {"a": pl.Series([1 << 100, -1, None], dtype=pl.Int128), "b": ["x", "y", "z"]}
    )
    assert columns(of(wide)) == {
        "a": ("i128", [str(1 << 100), "-1", "null"]),
        "b": ("str", ["'x'", "'y'", "'z'"]),
    }


# --- Arrow --------------------------------------------------------------------------------------

MOMENT = dt.datetime(2026, 11, 27, 8, 30)  # noqa: DTZ001 - a column without a zone is shown, too
ARROW = {
    "timestamp[us]": (pa.array([MOMENT, None]), ["2026-11-27 08:30:00", "null"]),
    "timestamp[ns]": (
        pa.array([1, None], pa.timestamp("ns")),
        ["1970-01-01 00:00:00.000000001", "null"],
    ),
    "timestamp[ms, tz=Asia/Tokyo]": (
        pa.array([MOMENT, None], pa.timestamp("ms", "Asia/Tokyo")),
        ["2026-11-27 08:30:00+00:00", "null"],
    ),
    "date32": (pa.array([dt.date(2026, 11, 27), None]), ["2026-11-27", "null"]),
    "date64": (pa.array([86_400_000, None], pa.date64()), ["1970-01-02 00:00:00", "null"]),
    "time64[us]": (pa.array([dt.time(8, 30), None]), ["08:30:00", "null"]),
    "time32[s]": (pa.array([61, None], pa.time32("s")), ["00:01:01", "null"]),
    "duration[us]": (pa.array([dt.timedelta(1), None]), ["1 day, 0:00:00", "null"]),
    "list<int64>": (pa.array([[1, None, *range(9)], []]), ["[1, null, 0, 1, 2, …]", "[]"]),
    "large_list<int8>": (pa.array([[1], None], pa.large_list(pa.int8())), ["[1]", "null"]),
    "list_view<int8>": (pa.array([[1], None], pa.list_view(pa.int8())), ["[1]", "null"]),
    "fixed_size_list<int8>[2]": (
        pa.array([None, [3, 4]], pa.list_(pa.int8(), 2)),
        ["null", "[3, 4]"],
    ),
    "list<list<string>>": (pa.array([[["a"], None]]), ["[['a'], null]"]),
    "struct<int64, string>": (pa.array([{"x": 1, "y": "z"}, None]), ["{'x': 1, 'y': 'z'}", "null"]),
    "map<string, int8>": (
        pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int8())),
        ["{'k': 1}", "null"],
    ),
    "dictionary<string>": (pa.array(["u", "v", None]).dictionary_encode(), ["'u'", "'v'", "null"]),
    "decimal128(2, 1)": (
        pa.array([decimal.Decimal("-0.5"), None], pa.decimal128(2, 1)),
        ["-0.5", "null"],
    ),
    "decimal256(40, 3)": (pa.array([decimal.Decimal(1)], pa.decimal256(40, 3)), ["1.000"]),
    "null": (pa.nulls(2), ["null", "null"]),
    "bool": (pa.array([True, None, False]), ["True", "null", "False"]),
    "halffloat": (pa.array(np.array([1.5], "f2")), ["1.5"]),
    "uint64": (pa.array([(1 << 64) - 1], pa.uint64()), [str((1 << 64) - 1)]),
    "string": (pa.array(["x", LONG, None]), ["'x'", repr(LONG), "null"]),
    "large_string": (pa.array(["ü"], pa.large_string()), ["'ü'"]),
    "string_view": (pa.array(["x", LONG, None], pa.string_view()), ["'x'", repr(LONG), "null"]),
    "binary": (pa.array([b"\0", None]), [r"b'\x00'", "null"]),
    "fixed_size_binary[3]": (pa.array([b"abc", None], pa.binary(3)), ["b'abc'", "null"]),
    "run_end_encoded<int64, string>": (
        pa.RunEndEncodedArray.from_arrays([1, 3], ["p", "q"]),
        ["'p'", "'q'", "'q'"],
    ),
    "sparse_union<int64, string>": (
        pa.UnionArray.from_sparse(
            pa.array([0, 1], pa.int8()), [pa.array([1, 2]), pa.array(["x", "y"])]
        ),
        ["1", "'y'"],
    ),
    "dense_union<int64, string>": (
        pa.UnionArray.from_dense(
            pa.array([1, 0], pa.int8()),
            pa.array([1, 0], pa.int32()),
            [pa.array([5]), pa.array(["x", "y"])],
        ),
        ["'y'", "5"],
    ),
    "month_day_nano_interval": (
        pa.array([(1, 2, 3)], pa.month_day_nano_interval()),
        ["1 months, 2 days, 3 ns"],
    ),
}


@pytest.mark.parametrize("dtype", ARROW)
def test_each_type_of_arrow_shows_its_values(dtype):
    """Of a table that is pickled, from a place within it, in parts, and in a stream."""
    array, wanted = ARROW[dtype]
    table = pa.table({"a": array})
    assert columns(of(table, SIX)) == {"a": (dtype, wanted)}
    twice = pa.concat_tables([table, table])
    assert columns(of(twice, SIX)) == {"a": (dtype, (2 * wanted)[:6])}
    if len(wanted) > 1:
        assert columns(of(table.slice(1), SIX)) == {"a": (dtype, wanted[1:])}
    (in_stream,) = columns(preview(frame_of_stream(stream_of(twice)), limits=SIX)).values()
    assert in_stream[1] == (2 * wanted)[:6]


def test_an_array_of_arrow_shows_its_values_without_a_table():
    """In one part or several."""
    shown = of(pa.chunked_array([[1, 2], [3]]))
    assert (shown["type"], shown["length"]) == ("pyarrow.ChunkedArray", 3)
    assert shown["rows"] == [["1"], ["2"], ["3"]]
    assert of(pa.array(["x"]))["rows"] == [["'x'"]]


def test_compressed_buffers_are_not_opened():
    """Which may hold anything, and of any size."""
    table = pa.table({"a": np.zeros(1_000_000), "b": np.random.default_rng(1).random(1_000_000)})
    data = frame_of_stream(stream_of(table, compression="lz4"))
    reader = InMemoryReader(data)
    shown = preview(data, reader=reader)
    assert shown["length"] == 1_000_000
    assert columns(shown)["a"] == ("f64", ["…"] * 3)
    assert reader.read < 100_000


# --- pandas -------------------------------------------------------------------------------------

PANDAS = {
    "Int64": (pd.array([1, None], dtype="Int64"), ["1", "NA"]),
    "boolean": (pd.array([True, None], dtype="boolean"), ["True", "NA"]),
    "category": (pd.Categorical(["u", None, "v"]), ["'u'", "NA", "'v'"]),
    "datetime64[us, with zone]": (
        pd.to_datetime([MOMENT]).as_unit("us").tz_localize("Asia/Tokyo").array,
        ["2026-11-26 23:30:00+00:00"],
    ),
    "timedelta64[us]": (pd.to_timedelta([30], unit="h").as_unit("us").array, ["1 day, 6:00:00"]),
    "period[M]": (pd.period_range("2026-11", periods=2, freq="M").array, ["2026-11", "2026-12"]),
    "period[D]": (
        pd.period_range("2026-11-27", periods=1, freq="D").array,
        ["2026-11-27 00:00:00"],
    ),
    "interval[int64]": (pd.interval_range(0, 2).array, ["(0, 1]", "(1, 2]"]),
    "Sparse[int64]": (pd.arrays.SparseArray([0, 0, 1]), ["0", "0", "1"]),
    "list<int64>": (
        pd.array([[1], None], dtype=pd.ArrowDtype(pa.list_(pa.int64()))),
        ["[1]", "null"],
    ),
    "timestamp[us]": (pd.array([MOMENT], dtype="timestamp[us][pyarrow]"), ["2026-11-27 08:30:00"]),
    "decimal128(3, 1)": (
        pd.array([decimal.Decimal("1.5")], dtype=pd.ArrowDtype(pa.decimal128(3, 1))),
        ["1.5"],
    ),
}


@pytest.mark.parametrize("dtype", PANDAS)
def test_each_type_of_pandas_shows_its_values(dtype):
    """In a frame and in a series."""
    array, wanted = PANDAS[dtype]
    assert columns(of(pd.DataFrame({"a": array, "b": 1}), SIX))["a"] == (dtype, wanted)
    assert columns(of(pd.Series(array, name="s"), SIX)) == {"s": (dtype, wanted)}


def test_an_index_shows_each_of_its_levels():
    """With their names, before the columns."""
    index = pd.MultiIndex.from_tuples([("x", 1), ("y", 2)], names=["k", "n"])
    shown = of(pd.DataFrame({"a": [0.5, 1.5]}, index=index))
    assert [each["name"] for each in shown["columns"]] == ["k", "n", "a"]
    assert shown["rows"] == [["'x'", "1", "0.5"], ["'y'", "2", "1.5"]]
    days = of(pd.DataFrame({"a": [1]}, index=pd.date_range("2026-11-27", periods=1, name="day")))
    assert [each["name"] for each in days["columns"]] == ["day", "a"]
    assert days["rows"] == [["2026-11-27 00:00:00", "1"]]


# --- streams that lie ---------------------------------------------------------------------------

EVERYTHING = pa.table(
    {
        dtype: pa.concat_arrays([array] * 6).slice(0, 6)
        for dtype, (array, _) in ARROW.items()
        if "union" not in dtype and "view" not in dtype and "run_end" not in dtype
    }
)
STREAM = stream_of(EVERYTHING)


@given(
    st.lists(
        st.tuples(st.integers(0, len(STREAM) - 1), st.binary(min_size=1, max_size=9)),
        min_size=1,
        max_size=5,
    )
)
def test_a_changed_stream_has_a_preview(changes):
    """Whatever its lengths, offsets and types are now."""
    stream = bytearray(STREAM)
    for at, noise in changes:
        stream[at : at + len(noise)] = noise
    shown = preview(frame_of_stream(bytes(stream)))
    assert shown["kind"] in {"table", "unknown"}
    assert len(str(shown)) < 100_000


def test_each_number_of_a_stream_may_be_the_largest():
    """Of what describes the data: no length or offset is believed."""
    small = stream_of(pa.table({"a": [1, 2], "b": ["x", LONG], "c": [[1], [2]]}))
    for size, most in (
        (4, b"\xff\xff\xff\x7f"),
        (4, b"\xff" * 4),
        (8, b"\xff" * 7 + b"\x7f"),
        (8, b"\0" * 8),
    ):
        for at in range(0, len(small) - size, 4):
            stream = small[:at] + most + small[at + size :]
            shown = preview(frame_of_stream(stream))
            assert shown["kind"] in {"table", "unknown"}
            assert len(str(shown)) < 10_000


class Flat:
    """Writes a flatbuffer: each part stands behind what refers to it."""

    def __init__(self):
        self.data = bytearray(4)

    def table(self, fields):
        """A table with these bytes as its fields; return where it is."""
        places, body = [], bytearray(4)
        for each in fields:
            places.append(len(body) if each is not None else 0)
            body += each or b""
        begin = len(self.data)
        self.data += struct.pack(f"<{2 + len(places)}H", 4 + 2 * len(places), len(body), *places)
        at = len(self.data)
        self.data += body
        struct.pack_into("<i", self.data, at, at - begin)
        return at, [at + place for place in places]

    def point(self, place, target):
        """Let the offset at a place lead to another."""
        struct.pack_into("<I", self.data, place, target - place)


def doubling_schema(count):
    """A schema whose field has two children, which are the same, which has again two, and so on."""
    flat = Flat()
    message, (_, _, header) = flat.table([struct.pack("<h", 4), b"\x01", bytes(4)])
    flat.point(0, message)
    schema, (_, fields) = flat.table([None, bytes(4)])
    flat.point(header, schema)
    refer = fields
    for _ in range(count):
        at = len(flat.data)
        flat.data += struct.pack("<III", 2, 0, 0)
        flat.point(refer, at)
        table, (*_, refer) = flat.table([None, None, b"\x0d", None, None, bytes(4)])
        flat.point(at + 4, table)
        flat.point(at + 8, table)
    flat.point(refer, len(flat.data))
    flat.data += bytes(8)
    return struct.pack("<II", 0xFFFFFFFF, len(flat.data)) + bytes(flat.data)


@pytest.mark.parametrize(
    "stream",
    [
        doubling_schema(15),
        doubling_schema(100),
        b"\xff\xff\xff\xff\xff\xff\xff\x7f" + b"x" * 3_000_000,
        STREAM[:8] + b"\0" * 3_000_000,
        STREAM * 300,
    ],
    ids=["doubling", "deep", "long", "empty", "repeated"],
)
def test_a_stream_that_lies_costs_little(stream):
    """Neither time nor memory grows with what it says."""
    data = frame_of_stream(stream)
    tracemalloc.start()
    shown = preview(data, limits=LIMITS)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    with counted_calls() as calls:
        assert preview(data, limits=LIMITS) == shown
    assert shown["kind"] in {"table", "unknown"}
    assert most < 20_000_000
    assert calls[0] < 1_000_000  # 820,000 for a schema that has as many fields as are looked at
