"""The sink of a run in an object store: what it writes into the cache, and what it tells."""

from __future__ import annotations

import os
import resource
import threading
from typing import TYPE_CHECKING

import pytest

from asyncflow.errors import StoreError
from asyncflow.store.object_store import uploader
from asyncflow.store.object_store.node_cache import NodeCache
from asyncflow.store.object_store.value_sink import NodeSink
from tests.support.call_counts import counted_calls

if TYPE_CHECKING:
    from pathlib import Path

SEGMENT = "flows/F/1/node.seg"


class Told:
    """Notes what a sink tells, or refuses to hear it."""

    def __init__(self):
        self.heard = []
        self.is_deaf = False

    def __call__(self, segment, end, blobs):
        if self.is_deaf:
            raise StoreError("nobody listens")
        self.heard.append((segment, end, [*blobs]))


@pytest.fixture
def told():
    """Who is told."""
    return Told()


@pytest.fixture
def sink(tmp_path: Path, told: Told):
    """A sink with an empty cache."""
    return NodeSink(NodeCache(os.fspath(tmp_path)), "F", "1", "node", told)


def test_what_was_appended_is_told_once(sink, told):
    """One end for all of it; and nothing if nothing is new."""
    assert sink.append(b"one") == ("1/node.seg", 0)
    assert sink.append(b"three") == ("1/node.seg", 3)
    sink.sync()
    sink.sync()
    assert told.heard == [(SEGMENT, 8, [])]


def test_what_nobody_heard_is_told_again(sink, told):
    """With what was written since."""
    sink.append(b"one")
    blob = sink.put_large([b"large"], 5)
    told.is_deaf = True
    for _ in range(2):
        with pytest.raises(StoreError):
            sink.sync()
    sink.append(b"three")
    other = sink.put_large([b"other"], 5)
    told.is_deaf = False
    sink.sync()
    assert told.heard == [(SEGMENT, 8, [blob, other])]


def test_what_nobody_heard_is_told_again_without_anything_new(sink, told):
    """The end is not forgotten."""
    sink.append(b"one")
    told.is_deaf = True
    with pytest.raises(StoreError):
        sink.sync()
    told.is_deaf = False
    sink.sync()
    assert told.heard == [(SEGMENT, 3, [])]


def test_a_thread_waits_until_another_has_told_its_value(told, tmp_path):
    """Else its task would be told of while nobody uploads the value."""
    telling, may_go_on = threading.Event(), threading.Event()

    def tell(*what):
        telling.set()
        assert may_go_on.wait(30)
        told(*what)

    slow = NodeSink(NodeCache(os.fspath(tmp_path)), "F", "1", "node", tell)
    slow.append(b"of the second")
    heard = []

    def sync():
        slow.sync()
        heard.append([*told.heard])

    threads = [threading.Thread(target=sync) for _ in range(2)]
    threads[0].start()
    assert telling.wait(30)
    threads[1].start()
    threads[1].join(0.2)  # it would have returned by then
    may_go_on.set()
    for thread in threads:
        thread.join(30)
    assert heard == [[(SEGMENT, 13, [])]] * 2


def test_a_value_of_which_a_part_was_written_has_no_place(sink, told, tmp_path):
    """As on a full disk; and the next value lies behind that part."""
    sink.append(b"0123456789")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (15, before[1]))
    try:
        with pytest.raises(StoreError):
            sink.append(b"abcdefghij")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (tmp_path / SEGMENT).read_bytes() == b"0123456789abcde"
    assert sink.append(b"next") == ("1/node.seg", 15)
    sink.sync()
    assert told.heard == [(SEGMENT, 19, [])]


def test_a_value_is_written_whole_if_a_write_took_only_a_part(sink, told, tmp_path, monkeypatch):
    """As if a signal had cut it: the part stays, and the value follows."""
    sink.append(b"0")
    write, cut = os.write, [3]
    monkeypatch.setattr(
        os, "write", lambda number, data: write(number, data[: cut.pop() if cut else None])
    )
    assert sink.append(b"abcdef") == ("1/node.seg", 4)
    assert (tmp_path / SEGMENT).read_bytes() == b"0abcabcdef"


def test_what_a_small_value_costs(sink):
    """It was 16 calls."""
    data = b"x" * 20_000
    sink.append(data)
    sink.sync()
    with counted_calls() as calls:
        for _ in range(100):
            sink.append(data)
            sink.sync()
    assert calls[0] / 100 < 15


def test_a_pack_is_read_whole_if_a_read_brings_only_a_part(tmp_path, monkeypatch):
    """As a system may do: each byte comes once, in its place."""
    data = os.urandom(10_000)
    (tmp_path / "x.seg").write_bytes(data)
    segment = uploader._Segment(os.fspath(tmp_path), "x.seg")
    segment.add(uploader.Upload("x.seg", len(data), ()))
    preadv, taken = os.preadv, memoryview(bytearray(len(data)))

    def halved(number, parts, at):
        (part,) = parts
        return preadv(number, [part[: -(-len(part) // 2)]], at)

    monkeypatch.setattr(os, "preadv", halved)
    begin, end = segment.take(uploader.PACK_BYTES)
    assert (begin, end) == (0, len(data))
    segment.read(begin, taken)
    assert taken == data
    segment.close()


def test_packs_are_the_bytes_of_the_segment_wherever_they_begin(tmp_path):
    """Large ones as small ones."""
    data = os.urandom(2 << 20)
    (tmp_path / "x.seg").write_bytes(data)
    segment, read = uploader._Segment(os.fspath(tmp_path), "x.seg"), b""
    for upto in (10, 300_000, 300_005, 1 << 20, len(data)):
        segment.add(uploader.Upload("x.seg", upto, ()))
        begin, end = segment.take(upto - len(read))
        assert (begin, end) == (len(read), upto)
        part = bytearray(end - begin)
        segment.read(begin, memoryview(part))
        read += part
    assert read == data
    segment.close()


@pytest.mark.parametrize("size", [10, 1 << 20])
def test_a_segment_that_became_shorter_is_no_pack(tmp_path, size):
    """What was announced is not there: nothing of it is stored."""
    path = tmp_path / "x.seg"
    path.write_bytes(bytes(size))
    segment = uploader._Segment(os.fspath(tmp_path), "x.seg")
    segment.add(uploader.Upload("x.seg", size, ()))
    begin, end = segment.take(uploader.PACK_BYTES)
    os.truncate(path, 4)
    with pytest.raises(StoreError, match="has become shorter"):
        segment.read(begin, memoryview(bytearray(end - begin)))
    segment.close()
