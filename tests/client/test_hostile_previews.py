"""Previews of bytes that were made to cost much: shared parts, copies, long values."""

from __future__ import annotations

import pickle
import struct
import sys
import tracemalloc
from contextlib import contextmanager

import numpy as np
import pandas as pd
import pytest

from asyncflow.client.previews import PreviewLimits
from asyncflow.page.answers import to_bytes
from tests.client.test_table_previews import Flat, frame_of_stream
from tests.support.previewing import InMemoryReader, of, preview

LIMITS = PreviewLimits(seconds=1_000)
"""No clock ends these previews: what ends them is that they count."""
MOST_CALLS = 2_000_000
MOST_MEMORY = 20_000_000


@contextmanager
def counted_calls():
    """Fail after so many calls, so that no test takes for ever."""
    count = 0

    def count_call(_frame, _event, _argument):
        nonlocal count
        count += 1
        if count > MOST_CALLS:
            sys.setprofile(None)
            raise AssertionError("the preview makes too many calls")

    sys.setprofile(count_call)
    try:
        yield
    finally:
        sys.setprofile(None)


# --- opcodes ------------------------------------------------------------------------------------


def pickled(*parts):
    """These opcodes as a pickle."""
    return b"\x80\x05" + b"".join(parts) + b"."


def named(module, name):
    """A class or a function of a module."""
    return f"c{module}\n{name}\n".encode()


def put(at):
    """Keep the top of the stack under a number, and take it from there."""
    return b"r" + struct.pack("<I", at) + b"0"


def get(at):
    """What was kept under a number."""
    return b"j" + struct.pack("<I", at)


def number(value):
    """A whole number of any length."""
    data = pickle.encode_long(value)
    return b"\x8b" + struct.pack("<I", len(data)) + data


def text(value):
    """A text."""
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def data(value):
    """Bytes."""
    return b"B" + struct.pack("<I", len(value)) + value


def several(*parts):
    """A tuple."""
    return b"(" + b"".join(parts) + b"t"


def listed(*parts):
    """A list."""
    return b"](" + b"".join(parts) + b"e"


def mapped(**values):
    """A dict."""
    return b"}(" + b"".join(text(name) + value for name, value in values.items()) + b"u"


def called(function, *arguments):
    """What a function returns."""
    return function + several(*arguments) + b"R"


def doubled(first, times, make):
    """A value that has the value before it in two places, and so on: 2**times parts."""
    made = first
    for at in range(times):
        made += put(at) + make(get(at))
    return made


TUPLES = doubled(b"N", 60, lambda inner: inner + inner + b"\x86")


# --- arrays and tables --------------------------------------------------------------------------


def array(dtype="f8", content=bytes(8), shape=None, order=None):
    """An array of NumPy."""
    count = number(len(content) // 8)
    kind = called(named("numpy", "dtype"), text(dtype))
    given = data(content), kind, shape or several(count), order or text("C")
    return called(named("numpy._core.numeric", "_frombuffer"), *given)


def labels(count):
    """The labels that count the rows."""
    given = mapped(start=number(0), stop=number(count), step=number(1))
    return called(named("pandas", "_new_Index"), named("pandas", "RangeIndex"), given)


def series(values):
    """A series of pandas."""
    state = several(listed(labels(1)), listed(values))
    manager = called(named("pandas", "SingleBlockManager")) + state + b"b"
    return called(named("pandas", "Series")) + mapped(_mgr=manager) + b"b"


def frame(*blocks, width):
    """A frame of pandas."""
    manager = called(named("pandas", "Blocks"), listed(*blocks), listed(labels(width), labels(1)))
    return called(named("pandas", "DataFrame")) + mapped(_mgr=manager) + b"b"


def block(values, begin, end):
    """A block with the columns of a frame from one place to another."""
    places = called(named("builtins", "slice"), number(begin), number(end), number(1))
    return called(named("pandas", "new_block"), values, places)


def masked(inner, other):
    """An array of pandas some of whose values may be missing."""
    return called(named("pandas", "Array")) + mapped(_mask=inner, _data=other) + b"b"


def arrow(kind, length=1, children=b"N"):
    """An array of Arrow."""
    given = several(kind, number(length), number(0), number(0), listed(b"N", b"N"), children, b"N")
    return called(named("pyarrow.lib", "_restore_array"), given)


def restored(children):
    """What an array of Arrow is made of."""
    return several(INT64, number(1), number(0), number(0), listed(b"N"), children, b"N")


INT64 = called(named("pyarrow.lib", "type_for_alias"), text("int64"))
OBJECTS = (
    called(named("numpy._core.multiarray", "_reconstruct"))
    + several(
        number(1),
        several(number(1), number(20_000)),
        called(named("numpy", "dtype"), text("O")),
        b"\x89",
        get(99),
    )
    + b"b"
)
WIDE = array("f8", shape=several(number(10_000), number(1)))
STATE = mapped(**{f"key{at}": b"N" for at in range(10_000)})
ARGUMENTS = several(b"N" * 20_000) + put(1)

SHARED_PARTS = {
    "the order of an array": array(order=TUPLES),
    "the unit of a timestamp": arrow(called(named("pyarrow.lib", "timestamp"), TUPLES)),
    "the mode of a union": arrow(
        called(named("pyarrow.lib", "union"), listed(b"N"), TUPLES, listed(number(0)))
    ),
    "the unit of a zoned column": series(
        called(named("pandas", "_unpickle"), named("pandas", "DatetimeArray"))
        + several(called(named("pandas", "DatetimeTZDtype")) + mapped(unit=TUPLES) + b"b", array())
        + b"b"
    ),
    "masked arrays": series(doubled(array(), 40, lambda inner: masked(inner, inner))),
    "types of Arrow": arrow(
        doubled(INT64, 19, lambda inner: called(named("pyarrow.lib", "struct"), listed(inner * 50)))
    ),
    "arrays of Arrow": called(
        named("pyarrow.lib", "_restore_array"),
        doubled(restored(b"N"), 19, lambda inner: restored(listed(inner * 50))),
    ),
    "blocks of a frame": block(WIDE, 0, 10_000) + put(1) + frame(get(1) * 8_000, width=10_000),
    "places of a block": (
        block(WIDE, 0, 1)
        + put(1)
        + called(named("pandas", "new_block"), array(), array("i8", bytes(80_000)))
        + put(2)
        + frame(get(1), get(2) * 8_000, width=10_000)
    ),
    "objects of a block": (
        listed(b"N" * 20_000)
        + put(99)
        + OBJECTS
        + put(98)
        + frame(*(block(get(98), at, at + 1) for at in range(1_000)), width=10_000)
    ),
    "states of arrays": (
        STATE
        + put(99)
        + called(named("pandas", "Array"))
        + get(99)
        + b"b"
        + put(98)
        + frame(block(get(98), 0, 1) + put(97), get(97) * 10_000, width=10)
    ),
    "arguments of calls": ARGUMENTS
    + named("a", "b")
    + put(2)
    + several((get(2) + get(1) + b"R") * 9_000),
    "arguments with names": ARGUMENTS
    + named("a", "b")
    + put(2)
    + mapped(a=b"N")
    + put(3)
    + several((get(2) + get(1) + get(3) + b"\x92") * 6_000),
    "items of lists": listed(b"N" * 20_000)
    + put(1)
    + named("builtins", "list")
    + put(2)
    + several((get(2) + get(1) + b"\x85R") * 6_000),
    "empty arguments": called(named("a", "b"), b")" * 45_000)
    + put(1)
    + listed(listed(get(1) * 50) * 40),
    "parts of a path": text("x" * 990)
    + put(1)
    + called(named("pathlib", "PosixPath"), get(1) * 40_000),
}


@pytest.mark.parametrize("parts", SHARED_PARTS.values(), ids=SHARED_PARTS)
def test_a_part_that_stands_in_many_places_is_not_looked_at_in_each(parts):
    """A few opcodes make trees of any size of it."""
    value = pickled(parts)
    with counted_calls():
        shown = preview(value, limits=LIMITS)
    assert len(to_bytes(shown)) < 50_000
    tracemalloc.start()
    preview(value, limits=LIMITS)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < MOST_MEMORY


def test_a_length_that_json_cannot_say_is_not_told():
    """Python refuses to write numbers of more than some thousand digits."""
    shown = preview(pickled(arrow(INT64, 1 << 100_000)), limits=LIMITS)
    assert shown["kind"] == "unknown"
    assert to_bytes(shown)


def test_of_long_values_of_an_array_only_the_beginnings_are_read():
    """One text of NumPy may be as long as the whole array."""
    value = np.array(["a" * 3_000_000, "b"])
    encoded = pickled(array("U3000000", value.tobytes(), several(number(2))))
    reader = InMemoryReader(encoded)
    shown = preview(encoded, limits=LIMITS, reader=reader)
    assert shown["text"].startswith(f"[{'a' * 100!r}, 'b'")
    assert reader.read < 200_000


def test_a_wide_frame_still_shows_its_columns():
    """What is counted is enough for the widest frame whose names are looked at."""
    wide = pd.DataFrame(np.zeros((2, 9_000)), columns=[f"c{at}" for at in range(9_000)])
    wide["last"] = ["x", "y"]
    shown = of(wide, LIMITS)
    assert shown["columns_count"] == 9_001
    assert shown["columns"][1] == {"name": "c1", "dtype": "float64"}


# --- streams of Arrow ---------------------------------------------------------------------------


def message(kind, body, make):
    """A message of a stream, whose header is what `make` writes."""
    flat = Flat()
    length = struct.pack("<q", len(body))
    at, (_, _, header, _) = flat.table([struct.pack("<h", 4), kind, bytes(4), length])
    flat.point(0, at)
    make(flat, header)
    return struct.pack("<II", 0xFFFFFFFF, len(flat.data)) + bytes(flat.data) + body


def repeat(flat, place, count):
    """A list of so many offsets; return where each stands."""
    at = len(flat.data)
    flat.data += struct.pack("<I", count) + bytes(4 * count)
    flat.point(place, at)
    return range(at + 4, at + 4 + 4 * count, 4)


def schema(count, kind, parameters, numbers=0):
    """So many columns, all described by the same table."""

    def make(flat, header):
        at, (_, fields) = flat.table([None, bytes(4)])
        flat.point(header, at)
        places = repeat(flat, fields, count)
        column, (*_, described) = flat.table([None, None, kind, bytes(4)])
        for place in places:
            flat.point(place, column)
        at, (_, last) = flat.table(parameters)
        flat.point(described, at)
        if numbers:
            repeat(flat, last, numbers)

    return message(b"\x01", b"", make)


def rows(count, body):
    """A batch of which each buffer is the whole body."""

    def make(flat, header):
        at, (_, nodes, buffers) = flat.table([struct.pack("<q", 1), bytes(4), bytes(4)])
        flat.point(header, at)
        parts = len(flat.data)
        flat.data += struct.pack("<I", 2 * count)
        flat.data += struct.pack("<qq", 0, len(body)) * (2 * count)
        flat.point(nodes, parts)
        flat.point(buffers, parts)

    return message(b"\x03", body, make)


def long_vtables(flat, header):
    """Columns whose table says that it has 32,000 fields."""
    at, (_, fields) = flat.table([None, bytes(4)])
    flat.point(header, at)
    places = repeat(flat, fields, 9_000)
    column, (*_, described) = flat.table(
        [None, None, b"\x02", bytes(4), *[None] * 32_000][: 4 + 32_000]
    )
    for place in places:
        flat.point(place, column)
    at, _ = flat.table([struct.pack("<i", 64), b"\x01"])
    flat.point(described, at)


INTEGER = [struct.pack("<i", 64), b"\x01"]
STREAMS = {
    "numbers of unions": schema(9_000, b"\x0e", [struct.pack("<h", 0), bytes(4)], 50_000),
    "fields of tables": message(b"\x01", b"", long_vtables),
    "buffers of a batch": schema(1_000, b"\x02", INTEGER) + rows(1_000, b"x" * 20_000),
}


@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS)
def test_a_table_of_a_stream_that_stands_in_many_places_is_not_copied_in_each(stream):
    """Thousands of columns may have the same description and the same bytes."""
    value = frame_of_stream(stream)
    with counted_calls():
        shown = preview(value, limits=LIMITS)
    assert shown["kind"] in {"table", "unknown"}
    tracemalloc.start()
    preview(value, limits=LIMITS)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < MOST_MEMORY
