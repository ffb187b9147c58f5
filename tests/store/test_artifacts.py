from __future__ import annotations

import datetime as dt
import os
import pickle
import resource
import signal
import subprocess
import sys
import textwrap
import threading
from collections import Counter, OrderedDict, deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from asyncflow._support import commit_points
from asyncflow.codec import Encoded
from asyncflow.errors import (
    ArtifactCorruptError,
    ArtifactError,
    ArtifactMissingError,
    ArtifactPickleError,
    StoreError,
)
from asyncflow.store import artifacts, change_detection, files, mapped_files, value_files
from asyncflow.store.artifacts import (
    BLOB_BYTES,
    INLINE_BYTES,
    ArtifactReader,
    ArtifactWriter,
)
from asyncflow.store.blobs import verified
from asyncflow.store.change_detection import Loaded, is_immutable
from asyncflow.store.files import open_file
from asyncflow.store.layout import Layout
from asyncflow.store.unstored import Unstored
from asyncflow.values import ArtifactRef, Encoding, Place
from tests.support.leftovers import open_descriptors
from tests.support.store_files import reader_of, writer_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LARGE = BLOB_BYTES // 8 + 1000  # so many numbers make a blob


@pytest.fixture
def layout(store: Path) -> Layout:
    """The layout of this test's store."""
    return Layout.open(store, create=True)


@pytest.fixture
def writer(layout: Layout) -> Iterator[ArtifactWriter]:
    """Stores the values of a run."""
    with writer_of(layout, "Flow", layout.create_run("Flow"), "w1") as writer:
        yield writer


@pytest.fixture
def reader(layout: Layout) -> ArtifactReader:
    """Reads as another worker does, that has seen none of it."""
    verified.clear()
    open_file.cache_clear()
    return reader_of(layout, "Flow")


def read_by_a_step(reader: ArtifactReader, ref: ArtifactRef) -> Loaded:
    """What a ref names, as a step gets it that may change it."""
    loaded = reader.load(ref)
    loaded.note()
    return loaded


def stored_bytes(layout: Layout) -> dict[str, int]:
    """Every file of the store with its length."""
    paths = (path for path in layout.root.rglob("*") if path.is_file())
    return {str(path): path.stat().st_size for path in paths}


def file_of(layout: Layout, ref: ArtifactRef) -> Path:
    """The file that a ref names."""
    if ref.place == Place.BLOB:
        return layout.blobs / ref.digest.hex()[:2] / ref.digest.hex()
    return layout.flow_dir("Flow") / ref.file


# --- places -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "place"),
    [
        (0, Place.INLINE),
        (INLINE_BYTES, Place.INLINE),
        (INLINE_BYTES + 1, Place.SEGMENT),
        (BLOB_BYTES - 1, Place.SEGMENT),
        (BLOB_BYTES, Place.BLOB),
    ],
)
def test_the_place_follows_from_the_size(layout, writer, reader, size, place):
    """Tiny values ride in the ref, middling ones go to the segment, large ones are blobs."""
    value = os.urandom(size)
    ref = writer.put(value)
    assert (ref.place, ref.encoding, ref.size, ref.type_name) == (place, 3, size, "bytes")
    assert ref.data == (value if place == Place.INLINE else b"")
    assert ref.digest == (b"" if place == Place.INLINE else blake3(value).digest())
    assert reader.load(ref).value == value
    assert reader.load_bytes(ref) == value
    assert reader.sha(ref) == blake3(value).hexdigest()
    reader.verify(ref)


def test_a_ref_is_plain_data(writer):
    """Numbers, text and bytes, as msgpack takes them."""
    for value in (1, "x" * 5000, np.zeros(LARGE)):
        assert [type(field) for field in writer.put(value)] == [
            *(int, int, str, int, bytes, str, int, bytes)
        ]


def test_values_of_a_worker_lie_in_its_segment(layout, writer):
    """The ref names it relative to the folder of the flow."""
    refs = [writer.put("x" * 5000 + str(number)) for number in range(3)]
    (run_id,) = layout.runs("Flow")
    assert {ref.file for ref in refs} == {f"{run_id}/w1.seg"}
    assert [ref.offset for ref in refs] == [0, refs[0].size, refs[0].size + refs[1].size]


def test_tiny_values_make_no_file(layout, writer):
    """A run of nothing but settings leaves no segment."""
    writer.put({"alpha": 0.1})
    assert not any(path.endswith(".seg") for path in stored_bytes(layout))


def test_equal_values_of_two_runs_are_one_blob(layout, writer):
    """The second run writes nothing."""
    first = writer.put(np.arange(LARGE))
    run_id = layout.create_run("Other")
    before = stored_bytes(layout)
    with writer_of(layout, "Other", run_id, "w1") as other:
        assert other.put(np.arange(LARGE)) == first
    assert stored_bytes(layout) == before


def test_a_closed_writer_opens_again(writer, reader):
    """Closing lets go of the file, no more."""
    first = writer.put("a" * 5000)
    writer.close()
    second = writer.put("b" * 5000)
    assert reader.load(first).value == "a" * 5000
    assert reader.load(second).value == "b" * 5000
    assert "w1.seg" in repr(writer)


@given(
    st.recursive(
        st.none() | st.integers() | st.text() | st.binary(max_size=3000),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_plain_data_is_read_as_it_was_written(tmp_path_factory, value):
    """Wherever it lies, it comes back equal, and is not called changed."""
    layout = Layout.open(tmp_path_factory.getbasetemp() / "plain", create=True)
    with writer_of(layout, "Flow", layout.create_run("Flow"), "w1") as writer:
        loaded = read_by_a_step(reader_of(layout, "Flow"), writer.put(value))
    assert loaded.value == value
    assert loaded.changed() is None


# --- changes ----------------------------------------------------------------------------------


def frame(rows: int) -> dict[str, Any]:
    """Columns for a frame or table."""
    return {"x": np.arange(float(rows)), "s": [f"row {i}" for i in range(rows)]}


UNCHANGED = {
    "int": 7,
    "text": "x" * 5000,
    "long text": "x" * BLOB_BYTES,
    "bytes": b"x" * BLOB_BYTES,
    "tuple": (1, ("a", None)),
    "date": dt.datetime.now(dt.UTC),
    "list": [1, [2, 3], {"a": "a"}],
    "long list": list(range(200_000)),
    "texts twice": [text := "some text", text, {"k": text}],
    "set of texts": {f"text {i}" for i in range(100)},
    "small array": np.arange(10),
    "array": np.arange(5000.0),
    "large array": np.arange(float(LARGE)),
    "large array in Fortran order": np.asfortranarray(np.ones((LARGE, 2))),
    "large transposed array": np.ones((LARGE, 2)).T,
    "every other": np.arange(float(2 * LARGE))[::2],
    "read-only array": np.broadcast_to(np.arange(float(LARGE)), (1, LARGE)),
    "object array": np.array([{"a": 1}, "b"], dtype=object),
    "arrays": {"a": np.ones(LARGE), "b": [np.zeros(LARGE), np.zeros(3)], "c": {"x", "y"}},
    "pandas": pd.DataFrame(frame(LARGE)),
    "small pandas": pd.DataFrame(frame(10)),
    "polars": pl.DataFrame(frame(LARGE)),
    "pyarrow": pa.table(frame(LARGE)),
    "counter": Counter("abracadabra"),
    "deque": deque(range(1000), maxlen=5000),
}


@pytest.mark.parametrize("value", UNCHANGED.values(), ids=UNCHANGED.keys())
def test_what_was_only_read_is_unchanged(layout, writer, reader, value):
    """Looking at a value costs no write; its ref goes on to the next task."""
    ref = writer.put(value)
    before = stored_bytes(layout)
    loaded = read_by_a_step(reader, ref)
    assert sorted(repr(loaded.value)) == sorted(repr(value))  # a set may come in another order
    assert loaded.changed() is None
    assert stored_bytes(layout) == before


def set_key(value: Any) -> None:
    """Change a dictionary."""
    value["new"] = 1


def set_first(value: Any) -> None:
    """Change the first of some."""
    value[0] = 99


def set_last(value: Any) -> None:
    """Change the last number of an array."""
    value.flat[-1] += 1


CHANGES = {
    "append to a list": ([1, 2], lambda value: value.append(3)),
    "change within a list": ([1, [2]], lambda value: value[1].append(3)),
    "change an item of a long list": (list(range(200_000)), set_first),
    "sort": ([3, 1, 2], lambda value: value.sort()),
    "add a key": ({"a": 1}, set_key),
    "change a tuple's list": ((1, [2]), lambda value: value[1].append(3)),
    "add to a set": ({1, 2}, lambda value: value.add(3)),
    "a byte of a bytearray": (bytearray(5000), set_first),
    "a byte of a large bytearray": (bytearray(BLOB_BYTES), set_first),
    "a small array": (np.zeros(10), set_last),
    "an array": (np.zeros(5000), set_last),
    "the last number of a large array": (np.zeros(LARGE), set_last),
    "one byte of a large array": (np.zeros(8 * LARGE, np.uint8), set_first),
    "the shape of an array": (np.zeros((LARGE, 2)), lambda value: value.resize(2, LARGE)),
    "an array of several": (
        {"a": np.ones(LARGE), "b": [np.zeros(LARGE)]},
        lambda value: set_last(value["b"][0]),
    ),
    "an array for another": ({"a": np.ones(LARGE)}, lambda value: value.update(a=np.zeros(LARGE))),
    "two arrays swapped": (
        [np.ones(LARGE), np.zeros(LARGE)],
        lambda value: value.reverse(),
    ),
    "a column": (pd.DataFrame(frame(LARGE)), lambda value: value.insert(0, "new", 1)),
    "a cell": (
        pd.DataFrame({"x": np.zeros(LARGE)}),
        lambda value: value.isetitem(0, np.ones(LARGE)),
    ),
    "a cell in place": (
        pd.DataFrame({"x": np.zeros(LARGE), "y": np.zeros(LARGE)}),
        lambda value: value.iloc.__setitem__((5, 1), 1.0),
    ),
    "a column of Polars": (
        pl.DataFrame({"x": np.zeros(LARGE)}),
        lambda value: value.insert_column(0, pl.Series("new", np.ones(LARGE))),
    ),
}


@pytest.mark.parametrize("tell", [True, False], ids=["pages told", "pages not told"])
@pytest.mark.parametrize(("value", "change"), CHANGES.values(), ids=CHANGES.keys())
def test_every_change_is_noticed(layout, writer, reader, value, change, tell, monkeypatch):
    """What was changed in place is stored as a new version, and the old one stays as it was."""
    if not tell:
        monkeypatch.setattr(change_detection, "is_written", lambda address, size: None)
    old = pickle.dumps(value)
    ref = writer.put(value)
    loaded = read_by_a_step(reader, ref)
    change(loaded.value)
    encoded = loaded.changed()
    assert isinstance(encoded, Encoded)
    new = writer.put_encoded(encoded)
    assert reader.sha(new) != reader.sha(ref)
    assert pickle.dumps(reader.load(new).value) != old
    assert repr(reader.load(new).value) == repr(loaded.value)
    assert repr(reader.load(ref).value) == repr(pickle.loads(old))


def test_without_word_of_pages_an_array_is_hashed(writer, reader, monkeypatch):
    """Where the platform cannot tell, an unchanged array is still found to be so."""
    monkeypatch.setattr(change_detection, "is_written", lambda address, size: None)
    loaded = read_by_a_step(reader, writer.put(np.zeros(LARGE)))
    assert loaded.changed() is None


@pytest.mark.skipif(not mapped_files._can_tell(), reason="this system does not tell about pages")
def test_an_array_that_was_only_read_is_not_looked_at_again(layout, writer, tmp_path):
    """Not one byte of it: a process that may not read it any more finds that it is unchanged."""
    (tmp_path / "ref").write_bytes(pickle.dumps(writer.put(np.zeros(LARGE))))
    script = """
        import ctypes, pickle, sys
        from asyncflow.store.mapped_files import address_of
        from asyncflow.store.artifacts import ArtifactReader
        from asyncflow.store.local_store import LocalStore
        reader = ArtifactReader(LocalStore(sys.argv[1]).value_source("Flow"))
        loaded = reader.load(pickle.load(open(sys.argv[2], "rb")))
        loaded.note()
        assert loaded.value.sum() == 0
        first, size = address_of(loaded._mapping), len(loaded._mapping)
        libc = ctypes.CDLL(None, use_errno=True)
        assert not libc.mprotect(ctypes.c_void_p(first), ctypes.c_size_t(size), 0)
        print(loaded.changed(), flush=True)
        print(loaded.value.sum())  # which ends the process: it was indeed not to be read
        """
    told = subprocess.run(
        [sys.executable, "-P", "-c", textwrap.dedent(script), layout.root, tmp_path / "ref"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert (told.stdout, told.returncode) == ("None\n", -signal.SIGSEGV), told.stderr


def test_bytes_written_back_as_they_were_make_no_new_version(layout, writer, reader):
    """A page that was written to may hold what it held: then the blob is there already."""
    ref = writer.put(np.zeros(LARGE))
    loaded = read_by_a_step(reader, ref)
    loaded.value[5] = 0.0
    before = stored_bytes(layout)
    encoded = loaded.changed()
    assert encoded is None or writer.put_encoded(encoded) == ref
    assert stored_bytes(layout) == before


def test_a_changed_value_is_encoded_once(writer, reader, monkeypatch):
    """The answer is what is to be stored."""
    ref = writer.put([1, 2])
    loaded = read_by_a_step(reader, ref)
    loaded.value.append(3)
    encoded = loaded.changed()
    monkeypatch.setattr(artifacts, "encode", lambda *_, **__: pytest.fail("again"))
    assert reader.load(writer.put_encoded(encoded)).value == [1, 2, 3]


def test_a_set_read_by_another_process_is_unchanged(layout, writer, tmp_path):
    """Another hash seed orders a set otherwise, and still nobody has changed it."""
    ref = writer.put({"names": {f"name {i}" for i in range(50)}, "a": np.zeros(LARGE // 100)})
    (tmp_path / "ref").write_bytes(pickle.dumps(ref))
    script = """
        import pickle, sys
        from asyncflow.store.artifacts import ArtifactReader
        from asyncflow.store.local_store import LocalStore
        reader = ArtifactReader(LocalStore(sys.argv[1]).value_source("Flow"))
        loaded = reader.load(pickle.load(open(sys.argv[2], "rb")))
        loaded.note()
        print(loaded.changed() is None)
        loaded.value["names"].remove("name 7")
        print(loaded.changed() is None)
        """
    for seed in ("1", "2"):
        told = subprocess.run(
            [sys.executable, "-P", "-c", textwrap.dedent(script), layout.root, tmp_path / "ref"],
            capture_output=True,
            text=True,
            check=True,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
                "PYTHONHASHSEED": seed,
            },
        )
        assert told.stdout.split() == ["True", "False"]


def test_a_value_that_cannot_be_pickled_any_more_is_an_error(writer, reader):
    """As when it is stored the first time."""
    loaded = read_by_a_step(reader, writer.put([1]))
    loaded.value.append(threading.Lock())
    with pytest.raises(ArtifactPickleError, match="artifact 'jobs' of type list"):
        loaded.changed("jobs")


def test_immutable_values_are_known_by_their_types():
    """Subclasses may have attributes, so only the exact types count."""

    class Number(int):
        pass

    day = dt.date(2026, 1, 1)
    for value in (1, "a", None, (1, ("a", 2.5)), frozenset({1}), range(3), day, b"", True):
        assert is_immutable(value)
    for other in ([], {}, ([],), Number(1), bytearray(), np.zeros(1), object()):
        assert not is_immutable(other)


# --- what changes while it is stored -----------------------------------------------------------


@contextmanager
def written_to(array: np.ndarray[Any, Any]) -> Iterator[None]:
    """Within the block a thread adds to all of an array, as one does that a step left behind."""
    ends = threading.Event()

    def add() -> None:
        while not ends.is_set():
            array[:] += 1

    thread = threading.Thread(target=add)
    thread.start()
    try:
        yield
    finally:
        ends.set()
        thread.join()


@pytest.mark.parametrize(
    ("size", "place"),
    [(100_000, Place.SEGMENT), (1 << 20, Place.BLOB), (24 << 20, Place.BLOB)],
    ids=["segment", "blob", "large blob"],
)
def test_what_changes_while_it_is_stored_is_stored_whole(writer, reader, monkeypatch, size, place):
    """Its hash is that of what was written, so it can be read, whichever state that is.

    It changes at each commit point, so between hashing and writing, if there is such a moment.
    """
    array = np.zeros(size, np.uint8)
    monkeypatch.setattr(commit_points, "watcher", lambda _: array.__iadd__(1))
    ref = writer.put(array)
    monkeypatch.undo()
    assert ref.place == place
    assert array[0] > 0
    reader.verify(ref)
    assert len(reader.load(ref).value) == size


def test_an_array_that_a_thread_writes_to_is_stored_whole(writer, reader):
    """The same without a choice of the moment."""
    array = np.zeros(24 << 20, np.uint8)
    with written_to(array):
        refs = [writer.put(array) for _ in range(3)]
    for ref in refs:
        reader.verify(ref)


@pytest.mark.parametrize("size", [100_000, 9 << 20])
def test_items_that_change_while_they_are_stored_are_stored_whole(
    writer, reader, monkeypatch, size
):
    """The hash of each item is that of what was written, and the hash of the list as well."""
    array = np.zeros(size, np.uint8)

    def items() -> Iterator[Any]:
        for _ in range(4):
            yield array
            array.__iadd__(1)  # it is the caller's again

    monkeypatch.setattr(commit_points, "watcher", lambda _: array.__iadd__(1))
    _, ref = writer.put_items(items())
    monkeypatch.undo()
    reader.verify(ref)
    assert [len(reader.load_item(ref, index)) for index in range(4)] == [size] * 4


# --- mapped values ----------------------------------------------------------------------------


def test_a_large_array_outlives_its_file(layout, writer, reader):
    """Deleting the blob does not hurt those who have read it."""
    ref = writer.put(np.arange(LARGE))
    value = reader.load(ref).value
    file_of(layout, ref).unlink()
    assert value.sum() == LARGE * (LARGE - 1) // 2
    value[0] = 5
    assert value[0] == 5


def test_changing_an_array_does_not_change_the_store(layout, writer, reader):
    """Each reader has its own, and the file stays as it was."""
    ref = writer.put(np.zeros(LARGE))
    one, other = reader.load(ref).value, reader.load(ref).value
    one[:] = 1
    assert not other.any()
    reader.verify(ref)


def test_reading_leaves_no_open_files(writer, reader):
    """A join over a thousand large values does not run out of them."""
    refs = [writer.put(np.full(LARGE, number)) for number in range(20)]
    before = open_descriptors()
    loaded = [reader.load(ref) for ref in refs]
    assert open_descriptors() - before == set()
    assert [each.value[0] for each in loaded] == list(range(20))


def test_arrays_of_any_place_can_be_changed(writer, reader):
    """Inline, in a segment or mapped: what was writable still is."""
    for size in (3, 5000, LARGE):
        value = reader.load(writer.put(np.zeros(size))).value
        value[-1] = 1
        assert value.sum() == 1


# --- foreach lists ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("items", "place"),
    [
        ([1, "two", None], Place.INLINE),
        (list(range(1000)), Place.SEGMENT),
        (list(range(10_000)), Place.BLOB),
        ([np.full(LARGE, i) for i in range(3)], Place.BLOB),
        ([np.full(600, i) for i in range(5)], Place.SEGMENT),
        ((1, 2), Place.INLINE),
        ([], Place.INLINE),
    ],
)
def test_each_item_is_read_by_itself(writer, reader, items, place):
    """Wherever the list lies; and the whole of it as well."""
    count, ref = writer.put_items(items)
    assert (count, ref.place, ref.encoding) == (len(items), place, Encoding.ITEMS)
    assert reader.item_count(ref) == count
    assert ref.type_name == type(items).__name__
    for index, item in list(enumerate(items))[:: max(1, count // 10)]:
        np.testing.assert_array_equal(reader.load_item(ref, index), item)
    loaded = read_by_a_step(reader, ref)
    assert type(loaded.value) is type(items)
    for one, other in zip(loaded.value, items, strict=True):
        np.testing.assert_array_equal(one, other)
    reader.verify(ref)
    assert loaded.changed() is None


def test_an_item_costs_the_same_in_a_long_list(writer, reader, monkeypatch):
    """Two reads, of an entry and of the item, once the list is known."""
    _, ref = writer.put_items(range(100_000))
    reader.load_item(ref, 5)
    sizes: list[int] = []

    def counted(path, offset, size):
        sizes.append(size)
        return files.read_at(path, offset, size)

    monkeypatch.setattr(value_files, "read_at", counted)
    monkeypatch.setattr(value_files, "read_writable_at", counted)
    assert reader.load_item(ref, 99_999) == 99_999
    assert len(sizes) == 2
    assert sum(sizes) < 64


def test_there_is_no_item_beyond_the_last(writer, reader):
    """Nor before the first."""
    _, ref = writer.put_items([1, 2])
    for index in (-1, 2, 1 << 40):
        with pytest.raises(IndexError):
            reader.load_item(ref, index)


def test_a_large_item_is_mapped(writer, reader):
    """Eight tasks that share a list of large arrays each map their own."""
    _, ref = writer.put_items([np.full(LARGE, i) for i in range(3)])
    item = reader.load_item(ref, 1)
    item[0] = 7
    assert reader.load_item(ref, 1)[0] == 1


def test_an_item_is_that_of_its_list_whichever_text_was_read_last(writer, reader):
    """A worker reads an item's text first, and need not look for the item again."""
    _, some = writer.put_items([10 * number for number in range(500)])
    _, others = writer.put_items([f"number {number}" for number in range(500)])
    for index in (0, 63, 64, 499):
        assert reader.item_text(some, index) == str(10 * index)
        assert reader.load_item(others, index) == f"number {index}"
        assert reader.load_item(some, index) == 10 * index
        assert reader.load_item(some, index) == 10 * index
        assert reader.load_item(some, (index + 1) % 500) == 10 * ((index + 1) % 500)


def test_a_damaged_item_is_refused_after_its_text_was_read(layout, writer, reader):
    """Nobody checks a text."""
    _, ref = writer.put_items([f"number {number}" for number in range(500)])
    path = file_of(layout, ref)
    data = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(data.replace(b"number 7\x94", b"number 9\x94", 1))
    assert reader.item_text(ref, 7) == "'number 7'"
    with pytest.raises(ArtifactCorruptError, match=r"rows\[7\]"):
        reader.load_item(ref, 7, "rows")
    assert reader.load_item(ref, 8) == "number 8"


def test_a_generator_is_stored_while_it_yields(layout, writer, reader):
    """Of a long one never all is in memory."""
    largest = 0

    def rows() -> Iterator[bytes]:
        nonlocal largest
        for number in range(2000):
            yield number.to_bytes(2, "little") * 2000
            largest = max(largest, sum(stored_bytes(layout).values()))

    count, ref = writer.put_items(rows())
    assert count == 2000
    assert largest > ref.size / 2
    assert ref.type_name == "list"
    assert reader.load_item(ref, 1234) == (1234).to_bytes(2, "little") * 2000


def test_equal_lists_are_one_blob(layout, writer):
    """Whether they came from a list or from a generator."""
    _, first = writer.put_items(list(range(20_000)))
    before = stored_bytes(layout)
    _, second = writer.put_items(number for number in range(20_000))
    assert second == first
    assert stored_bytes(layout) == before


def test_a_generator_that_raises_stores_nothing(layout, writer):
    """Its own exception comes through."""

    def rows() -> Iterator[bytes]:
        yield b"x" * (2 * BLOB_BYTES)
        yield b"y" * (2 * BLOB_BYTES)
        raise LookupError("mine")

    before = stored_bytes(layout)
    with pytest.raises(LookupError, match="mine"):
        writer.put_items(rows())
    assert stored_bytes(layout) == before


def test_an_unpicklable_item_is_named(writer):
    """With its place in the list."""
    with pytest.raises(ArtifactPickleError, match=r"artifact 'rows\[2\]'"):
        writer.put_items([1, 2, threading.Lock()], name="rows")


@pytest.mark.parametrize(
    "items", [[1, 2], [np.zeros(LARGE), np.ones(LARGE)]], ids=["numbers", "arrays"]
)
def test_a_changed_list_is_stored_like_any(writer, reader, items):
    """Whoever appends to the list of a foreach, or changes an item, has made another list."""
    _, ref = writer.put_items(items)
    for change in (lambda value: value.append(3), lambda value: value.reverse()):
        loaded = read_by_a_step(reader, ref)
        change(loaded.value)
        again = reader.load(writer.put_encoded(loaded.changed())).value
        assert repr(again) == repr(loaded.value)


# --- damage -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", ["some text" * 130, {"a": np.arange(600.0)}], ids=["pickle", "buffers"]
)
def test_no_damage_of_a_segment_goes_unnoticed(layout, writer, reader, value):
    """Whichever byte is flipped, and wherever the file is cut, reading is an error."""
    writer.put("before" * 1000)
    ref = writer.put(value)
    path = file_of(layout, ref)
    whole = path.read_bytes()
    for at in range(ref.offset, len(whole), 7):
        flipped = bytearray(whole)
        flipped[at] ^= 1 << at % 8
        for damaged in (flipped, whole[:at]):
            path.write_bytes(damaged)
            with pytest.raises(ArtifactCorruptError, match="artifact 'v' is damaged") as caught:
                reader.load(ref, "v")
            assert caught.value.artifact == "v"
    path.write_bytes(whole)
    assert repr(reader.load(ref).value) == repr(value)


@pytest.mark.parametrize("count", [100, 12_000], ids=["segment", "blob"])
def test_no_damage_of_a_list_gives_a_wrong_item(layout, writer, count):
    """Neither in an item nor in the table nor in the end."""
    _, ref = writer.put_items([f"item {i}" for i in range(count)])
    path = file_of(layout, ref)
    path.chmod(0o644)
    whole = path.read_bytes()
    step = 13 if count == 100 else 20_001
    noticed = 0
    for at in [*range(0, len(whole), step), *range(len(whole) - 64, len(whole))]:
        flipped = bytearray(whole)
        flipped[at] ^= 1 << at % 8
        for damaged in (flipped, whole[:at]):
            path.write_bytes(damaged)
            for index in (0, count // 2, count - 1):
                reader = reader_of(layout, "Flow")
                try:
                    item = reader.load_item(ref, index, "rows")
                except ArtifactCorruptError:
                    noticed += 1
                else:
                    assert item == f"item {index}"
            with pytest.raises(ArtifactCorruptError):
                reader.verify(ref)
    assert noticed > 64 * 3


def test_a_segment_that_is_gone_is_named(layout, writer, reader):
    """With the artifact and the file."""
    ref = writer.put("x" * 5000)
    _, items = writer.put_items(range(1000))
    file_of(layout, ref).unlink()
    for call in (
        lambda: reader.load(ref, "model"),
        lambda: reader.load_item(items, 1, "model"),
        lambda: reader.item_count(items, "model"),
        lambda: reader.verify(ref, "model"),
    ):
        with pytest.raises(ArtifactMissingError, match=r"artifact 'model.*w1.seg is gone"):
            call()


def test_a_list_in_a_truncated_blob_does_not_end_the_process(layout, writer, reader):
    """Mapping beyond the end of a file would kill whoever touches it."""
    _, ref = writer.put_items([np.full(LARGE, i) for i in range(3)])
    assert reader.load_item(ref, 2)[0] == 2
    path = file_of(layout, ref)
    path.chmod(0o644)
    os.truncate(path, 100)
    with pytest.raises(ArtifactCorruptError):
        reader.load_item(ref, 0)
    with pytest.raises(ArtifactCorruptError):
        reader.load(ref)


class Unopenable:
    def __reduce__(self):
        return (int, ("not a number",))


def test_a_value_that_cannot_be_opened_is_told_from_a_damaged_one(writer, reader):
    """A missing package, say: the artifact and the cause are named."""
    ref = writer.put(Unopenable())
    with pytest.raises(ArtifactError, match=r"'model', a .*Unopenable, cannot be opened here: Val"):
        reader.load(ref, "model")
    _, items = writer.put_items([1, Unopenable()])
    assert reader.load_item(items, 0) == 1
    with pytest.raises(ArtifactError, match=r"'rows\[1\]'.* cannot be opened here: ValueError"):
        reader.load_item(items, 1, "rows")


@pytest.mark.parametrize("size", [5000, 2 * BLOB_BYTES])
def test_a_full_disk_is_told(layout, writer, reader, size):
    """And what is written once there is room again is read back right."""
    first = writer.put(b"a" * 3000)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(StoreError, match="make room there"):
            writer.put(os.urandom(size))
        with pytest.raises(StoreError, match="make room there"):
            writer.put_items(os.urandom(100) for _ in range(size // 100))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    second = writer.put(b"b" * 3000)
    assert reader.load(first).value == b"a" * 3000
    assert reader.load(second).value == b"b" * 3000
    assert not any("/new/" in path for path in stored_bytes(layout))


def test_objects_tell_what_they_are(layout, writer, reader):
    """In a debugger."""
    assert str(layout.flow_dir("Flow")) in repr(reader)
    assert repr(reader.load(writer.put([1]))) == "<Loaded list, 17 bytes>"


@pytest.mark.slow
def test_three_gibibytes(layout, writer, reader):
    """Made, read, not changed, changed: lengths that 31 bits cannot hold are no limit."""
    array = np.zeros(3 << 27)
    array[-1] = 5
    ref = writer.put(array)
    assert ref.size > 3 << 30
    del array
    loaded = read_by_a_step(reader, ref)
    assert loaded.value[-1] == 5
    assert loaded.changed() is None
    loaded.value[1 << 28] = 1
    changed = writer.put_encoded(loaded.changed())
    assert reader.load(changed).value[1 << 28] == 1
    assert reader.load(ref).value[1 << 28] == 0


NUMBERS = st.one_of(st.integers(-(10**39), 10**39), st.floats(), st.booleans())
ATOMS = st.one_of(st.none(), NUMBERS, st.text(max_size=30))
FEW = st.lists(ATOMS, max_size=6)


@given(ATOMS | FEW | FEW.map(tuple) | st.dictionaries(ATOMS, ATOMS, max_size=3))
def test_the_short_way_for_short_values_gives_the_same_ref(value):
    """A worker stores most artifacts that way."""
    assert artifacts.ref_to_short(value) == ArtifactWriter(Unstored()).put(value)


@pytest.mark.parametrize(
    "value",
    [b"", [*range(7)], (1, (2,)), {"a": []}, {1: 2, 3: 4, 5: 6, 7: 8}, {1}, 1j, OrderedDict()],
)
def test_other_values_do_not_go_the_short_way(value):
    """Whatever they contain."""
    assert artifacts.ref_to_short(value) is None


def test_what_is_too_long_for_its_event_is_not_stored_the_short_way():
    """Its length as stored counts, not that of the text."""
    assert artifacts.ref_to_short("é" * (INLINE_BYTES // 2)) is None
    assert artifacts.ref_to_short(1 << (8 * INLINE_BYTES)) is None
    assert artifacts.ref_to_short("e" * (INLINE_BYTES - 100)) is not None
