from __future__ import annotations

import pickle
import re
import signal
import sys
import threading
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from asyncflow import codec
from asyncflow.codec.encoded import ALIGNMENT, parse_buffers
from asyncflow.errors import ArtifactPickleError
from asyncflow.values import Encoding
from tests.support.flows import Hiding
from tests.support.items import encode_items

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(),
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(st.text() | st.integers(), inner)
        | st.frozensets(st.integers() | st.text())
    ),
)


def stored(value: object) -> tuple[codec.Encoded, bytearray]:
    """A value's encoding and its bytes."""
    encoded = codec.encode(value)
    data = bytearray(b"".join(encoded.chunks))
    assert len(data) == encoded.size
    return encoded, data


def round_trip(value: object) -> Any:
    """A value encoded and decoded again."""
    encoded, data = stored(value)
    return codec.decode(encoded.encoding, data)


@given(PLAIN)
def test_plain_data_comes_back_as_it_was(value):
    """Whatever is nested of plain data, decoding undoes encoding."""
    assert round_trip(value) == value


@given(st.lists(PLAIN))
def test_items_come_back_as_they_were(items):
    """A list that was stored item by item decodes to the same list."""
    encoded = encode_items(items)
    data = b"".join(encoded.chunks)
    assert len(data) == encoded.size
    assert codec.decode(encoded.encoding, data) == items


@pytest.mark.parametrize("value", [7, -1, 2.5, True, False, None, "text", ""])
def test_atoms_are_one_short_pickle(value):
    """The commonest artifacts take a few bytes."""
    encoded, data = stored(value)
    assert encoded.encoding is Encoding.PICKLE
    assert encoded.size <= 25
    assert pickle.loads(data) == value
    assert encoded.type_name == type(value).__name__


@pytest.mark.parametrize("size", [0, 1, 100_000])
def test_bytes_are_stored_as_they_are(size):
    """A `bytes` object is its own encoding, and is not copied."""
    value = b"x" * size
    encoded = codec.encode(value)
    assert encoded.encoding is Encoding.BYTES
    assert encoded.chunks[0] is value
    assert codec.decode(encoded.encoding, bytearray(value)) == value


ARRAYS = {
    "0-d": np.array(3.5),
    "empty": np.zeros((0, 3)),
    "small": np.arange(10),
    "large": np.arange(10_000.0),
    "not contiguous": np.arange(20_000)[::2],
    "transposed": np.arange(20_000).reshape(100, 200).T,
    "Fortran order": np.asfortranarray(np.arange(20_000).reshape(100, 200)),
    "objects": np.array([{"a": 1}, "text", None], dtype=object),
    "structured": np.zeros(2000, dtype=[("name", "U8"), ("value", "f8")]),
    "dates": np.arange("2020-01-01", "2030-01-01", dtype="datetime64[D]"),
    "bits": np.ones((100, 100), dtype=bool),
}


@pytest.mark.parametrize("array", ARRAYS.values(), ids=ARRAYS.keys())
def test_arrays_come_back_as_they_were(array):
    """Values, type, shape and being writable survive."""
    back = round_trip(array)
    np.testing.assert_array_equal(back, array)
    assert (back.dtype, back.shape) == (array.dtype, array.shape)
    assert back.flags.writeable


def test_a_large_array_is_neither_copied_nor_pickled():
    """The chunk that is written is the array's own memory."""
    array = np.arange(10_000.0)
    encoded = codec.encode(array)
    assert encoded.encoding is Encoding.BUFFERS
    assert np.shares_memory(np.frombuffer(encoded.chunks[-1], float), array)


def test_a_decoded_array_lies_where_its_bytes_are():
    """Changing the array changes the bytes that it was decoded from, and nothing is copied."""
    encoded, data = stored(np.zeros(10_000))
    back = codec.decode(encoded.encoding, data)
    before = bytes(data)
    back[-1] = 1.0
    assert bytes(data) != before


def test_a_read_only_array_stays_read_only():
    """Whether an array may be changed is part of it."""
    array = np.arange(10_000.0)
    array.flags.writeable = False
    assert not round_trip(array).flags.writeable


def test_buffers_are_aligned():
    """Each large buffer begins at a multiple of 64."""
    _, data = stored({"a": np.ones(1001, np.uint8), "b": [np.ones(5001, np.uint8)] * 2, "c": 1})
    _, ranges = parse_buffers(memoryview(data))
    assert [each.stop - each.start for each in ranges] == [5001]
    _, data = stored([np.full(5001 + i, i, np.uint8) for i in range(5)])
    _, ranges = parse_buffers(memoryview(data))
    assert [each.stop - each.start for each in ranges] == [5001, 5002, 5003, 5004, 5005]
    assert all(each.start % ALIGNMENT == 0 for each in ranges)
    assert [data[each.start] for each in ranges] == [0, 1, 2, 3, 4]


def test_nested_arrays_keep_their_places():
    """A dictionary of lists of arrays comes back with each array in its place."""
    value = {name: [np.full(2000, i * 10 + j) for j in range(3)] for i, name in enumerate("ab")}
    back = round_trip(value)
    assert [back[name][j][0] for name in "ab" for j in range(3)] == [0, 1, 2, 10, 11, 12]


def test_frames_and_tables_come_back_as_they_were():
    """pandas, Polars and PyArrow."""
    columns = {"x": np.arange(5000.0), "n": np.arange(5000), "s": [f"row {i}" for i in range(5000)]}
    pandas = pd.DataFrame(columns)
    pd.testing.assert_frame_equal(round_trip(pandas), pandas)
    polars = pl.DataFrame(columns)
    assert round_trip(polars).equals(polars)
    table = pa.table(columns)
    assert round_trip(table).equals(table)


def test_what_only_cloudpickle_can_do():
    """Lambdas, closures, local classes and their instances."""
    factor = 3

    class Local:
        def __init__(self, value: int) -> None:
            self.value = value

    double, scaled, local = round_trip((lambda x: 2 * x, lambda x: factor * x, Local(7)))
    assert (double(4), scaled(4), local.value) == (8, 12, 7)
    assert type(local).__name__ == "Local"


@dataclass
class Holder:
    clients: list[object]


def test_an_unpicklable_member_is_named():
    """The error tells the artifact, its type, and which member is in the way."""
    model = Holder([1, {"deep": (2, threading.Lock())}])
    with pytest.raises(ArtifactPickleError) as caught:
        codec.encode({"model": model}, name="best")
    assert caught.value.artifact == "best"
    message = str(caught.value)
    assert "artifact 'best' of type dict cannot be pickled" in message
    assert "self.best['model'].clients[1]['deep'][1] is a _thread.lock" in message


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (threading.Lock(), "of type _thread.lock cannot be pickled: TypeError"),
        ((i for i in range(3)), "of type generator"),
        (partial(print, file=threading.Lock()), "self.it.keywords['file'] is a _thread.lock"),
        ({threading.Lock(): 1}, "is a _thread.lock"),
    ],
)
def test_many_kinds_of_unpicklable_members_are_named(value, words):
    """Whatever holds it, the culprit is found."""
    with pytest.raises(ArtifactPickleError) as caught:
        codec.encode(value, name="it")
    assert words in str(caught.value)


@pytest.mark.parametrize("mode", ["r", "w", "rb", "wb"])
def test_an_open_file_is_refused_and_no_copy_takes_its_place(tmp_path, mode):
    """Wherever it lies; the error says what to keep instead."""
    path = tmp_path / "file"
    path.touch()
    with path.open(mode) as opened:
        kind = f"_io.{type(opened).__name__}"
        for value, where in ((opened, ""), ({"log": [opened]}, f"self.it['log'][0] is a {kind}: ")):
            with pytest.raises(ArtifactPickleError) as caught:
                codec.encode(value, name="it")
            # What pickle says itself depends on the version of Python.
            told = re.escape(f"cannot be pickled: {where}TypeError: ") + "cannot pickle '.*'.*"
            assert re.search(rf"{told}\. Keep the file's name", str(caught.value))


def test_the_standard_streams_are_stored_as_such(tmp_path, monkeypatch):
    """A function may have one at hand."""
    with (tmp_path / "out").open("w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        assert round_trip(lambda out=stdout: out)() is stdout


def test_what_a_closure_holds_is_named():
    """A function that uses a lock of its surroundings says so."""
    lock = threading.Lock()
    with pytest.raises(ArtifactPickleError, match=r"closing over lock is a _thread\.lock"):
        codec.encode(lambda: lock, name="it")


class Refuses:
    def __getstate__(self):
        raise RuntimeError("not today")


def test_what_a_value_raises_is_told():
    """An exception from a value's own `__getstate__` comes with the error."""
    with pytest.raises(ArtifactPickleError, match=r"self.it\[0\] is a .*RuntimeError: not today"):
        codec.encode([Refuses()], name="it")


class Leaves:
    """Ends the process where it is stored."""

    def __init__(self, status: int) -> None:
        self.status = status

    def __reduce__(self):
        sys.exit(self.status)


def test_a_value_that_exits_when_it_is_pickled_is_named():
    """It is an error of the artifact, and not the end of the process."""
    with pytest.raises(ArtifactPickleError, match=r"self.it\['x'\] is a .*Leaves: SystemExit: 4"):
        codec.encode({"x": Leaves(4)}, name="it")


def test_a_stop_from_outside_goes_through():
    """What a worker's handler raises in the midst of pickling is no error of the artifact."""
    with pytest.raises(SystemExit):
        codec.encode({"x": Leaves(128 + signal.SIGTERM)}, name="it")


class Nameless(metaclass=Hiding):
    """What only its instance's type knows."""


def test_the_type_of_any_value_has_a_name_that_can_be_stored():
    """Whatever its metaclass does, and whatever is in its name."""
    odd = type("Odd", (), {"__module__": "here"})
    odd.__qualname__ = "Odd\udc80"
    assert codec.type_name(Nameless()) == f"{__name__}.Nameless"
    assert codec.type_name(odd()) == r"here.Odd\udc80"


def test_nesting_too_deep_is_an_error_and_no_crash():
    """A list of 100,000 levels cannot be pickled."""
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(ArtifactPickleError, match="nested too deeply") as caught:
        codec.encode(value, name="it")
    assert re.search(r"self\.it\[0\].* … \d+ levels more … .*\[0\] is a list", str(caught.value))
    assert len(str(caught.value)) < 500
    while value:  # else freeing it nests as deep
        value = value.pop()


def test_explaining_an_error_takes_bounded_time(monkeypatch):
    """Of a huge value the error names what it has found when its time is up."""
    monkeypatch.setattr("asyncflow.codec.unpicklable._SECONDS", 0.0)
    with pytest.raises(ArtifactPickleError, match="of type list cannot be pickled: TypeError"):
        codec.encode([threading.Lock()], name="it")


@pytest.mark.parametrize(
    "value", [b"", b"short", b"AFB1", b"AFB1" + b"\xff" * 12, b"AFB1\1\0\0\0" + b"\0" * 8]
)
def test_bytes_of_another_kind_are_refused(value):
    """Decoding looks before it reads outside of its bytes."""
    with pytest.raises(ValueError, match="value"):
        codec.decode(Encoding.BUFFERS, value)


def test_the_digest_is_blake3_of_all_chunks():
    """However many chunks and threads, it is the same hash."""
    data = bytes(range(256)) * (5 << 12)
    expected = blake3(data).digest()
    assert codec.digest(data) == codec.digest(data[:1000], data[1000:]) == expected
    assert codec.digest() == blake3().digest()


def test_type_names_are_for_people():
    """Builtins by their name, others with their module."""
    values: list[Any] = [[], np.zeros(1), pd.DataFrame()]
    names = [codec.type_name(value) for value in values]
    assert names[:2] == ["list", "numpy.ndarray"]
    assert names[2].startswith("pandas.")


@pytest.mark.slow
def test_values_above_4_gib_are_stored():
    """Lengths that 32 bits cannot hold are no limit."""
    array = np.zeros(3 << 29, dtype=np.uint16)  # 3 GiB
    array[-1] = 7
    encoded = codec.encode([array, b"x" * (2 << 30)])
    assert encoded.size > 5 << 30
    assert sum(map(len, encoded.chunks)) == encoded.size
