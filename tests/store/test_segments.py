from __future__ import annotations

import errno
import os
import resource
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event
from typing import TYPE_CHECKING

import pytest

from asyncflow.errors import StoreError
from asyncflow.store import files, segments
from asyncflow.store.files import open_file, read_at, read_writable_at, write_all
from tests.support.leftovers import open_descriptors
from tests.support.store_files import segment_at

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """As on a full disk: no file may grow beyond this size."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_values_lie_one_behind_the_other(tmp_path: Path):
    """Each append tells where its bytes begin."""
    path = tmp_path / "w1.seg"
    with segment_at(path) as segment:
        assert not path.exists()
        assert segment.append([b"one"]) == 0
        assert segment.append([b"tw", bytearray(b"o"), memoryview(b"!")]) == 3
        assert segment.append([b""]) == 7
        assert segment.append([b"three"]) == 7
    assert path.read_bytes() == b"onetwo!three"
    assert read_at(str(path), 3, 4) == b"two!"


def test_many_chunks_are_written_in_order(tmp_path: Path):
    """More pieces than the system takes at once are no problem."""
    chunks = [bytes([i % 256]) * (i % 7) for i in range(5000)]
    with segment_at(tmp_path / "w1.seg") as segment:
        segment.append(chunks)
    assert (tmp_path / "w1.seg").read_bytes() == b"".join(chunks)


@pytest.mark.parametrize("most", [1, 3, 1000])
def test_short_writes_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most):
    """The system may write less than it was given; the rest follows."""
    write, writev = os.write, os.writev
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, memoryview(data)[:most]))
    monkeypatch.setattr(os, "writev", lambda fd, chunks: writev(fd, [b"".join(chunks)[:most]]))
    with segment_at(tmp_path / "w1.seg") as segment:
        assert segment.append([b"0123456789"]) == 0
        assert segment.append([b"", b"ab", b"", b"cdefgh", b"ij"]) == 10
        assert segment.append([b"end"]) == 20
    assert (tmp_path / "w1.seg").read_bytes() == b"0123456789abcdefghijend"


def test_a_writer_goes_on_behind_what_is_there(tmp_path: Path):
    """A worker that crashed may have left half a value; nobody's bytes are overwritten."""
    path = tmp_path / "w1.seg"
    path.write_bytes(b"torn")
    with segment_at(path) as segment:
        assert segment.append([b"whole"]) == 4
    assert segment.append([b"again"]) == 9
    segment.close()
    assert path.read_bytes() == b"tornwholeagain"


def test_two_writers_never_share_a_file(tmp_path: Path):
    """Of two segments of one name the second is called otherwise."""
    with segment_at(tmp_path / "w1.seg") as one, segment_at(tmp_path / "w1.seg") as other:
        one.append([b"one"])
        other.append([b"other"])
        assert (one.name, other.name) == ("w1.seg", "w1-2.seg")
    assert (tmp_path / "w1.seg").read_bytes() == b"one"
    assert (tmp_path / "w1-2.seg").read_bytes() == b"other"


def test_a_forked_child_gets_a_segment_of_its_own(tmp_path: Path, monkeypatch):
    """What a step's child stores does not end up within its parent's values."""
    segment = segment_at(tmp_path / "w1.seg")
    segment.append([b"parent"])
    kept = os.dup(segment._fd)  # the parent's file is still open
    child = os.getpid() + 1
    monkeypatch.setattr(os, "getpid", lambda: child)
    assert segment.append([b"child"]) == 0
    assert segment.name == "w1-2.seg"
    os.close(kept)
    segment.close()
    assert (tmp_path / "w1.seg").read_bytes() == b"parent"


@pytest.mark.parametrize("chunks", [[b"x" * 5000], [b"x" * 2000] * 3])
def test_a_full_disk_leaves_the_segment_as_it_was(tmp_path: Path, chunks):
    """The value that does not fit is taken back whole, and the next one is read back right."""
    path = tmp_path / "w1.seg"
    with segment_at(path) as segment:
        segment.append([b"before"])
        with largest_file(4096), pytest.raises(StoreError, match=r"cannot write to .*; make room"):
            segment.append(chunks)
        assert path.stat().st_size == 6
        assert segment.append([b"after"]) == 6
    assert path.read_bytes() == b"beforeafter"


def test_what_cannot_be_taken_back_is_written_over(tmp_path: Path, monkeypatch):
    """Even where the file cannot be cut, offsets stay right."""
    monkeypatch.setattr(os, "ftruncate", lambda fd, size: (_ for _ in ()).throw(OSError("no")))
    path = tmp_path / "w1.seg"
    with segment_at(path) as segment:
        with largest_file(4096), pytest.raises(StoreError):
            segment.append([b"x" * 5000])
        assert segment.append([b"after"]) == 0
    assert path.read_bytes()[:6] == b"afterx"


def test_a_run_that_is_gone_is_a_store_error(tmp_path: Path):
    """The message names the file."""
    with pytest.raises(StoreError, match=r"missing/w1.seg: No such file"):
        segment_at(tmp_path / "missing" / "w1.seg").append([b"x"])


def test_a_segment_tells_what_it_is(tmp_path: Path):
    """Its name and how much is in it."""
    segment = segment_at(tmp_path / "w1.seg")
    assert repr(segment) == f"<SegmentWriter {tmp_path}/w1.seg closed>"
    segment.append([b"123"])
    assert repr(segment) == f"<SegmentWriter {tmp_path}/w1.seg 3 bytes>"
    segment.close()


# --- reading ----------------------------------------------------------------------------------


def test_reading_stops_where_the_file_ends(tmp_path: Path):
    """A range beyond the end is shorter, or empty."""
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    for read in (read_at, read_writable_at):
        assert read(str(path), 8, 10) == b"89"
        assert read(str(path), 10, 1) == b""
        assert read(str(path), 0, 10) == b"0123456789"


def test_short_reads_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The system may read less than it was asked for."""
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    pread, preadv = os.pread, os.preadv
    monkeypatch.setattr(os, "pread", lambda fd, size, at: pread(fd, min(size, 3), at))
    monkeypatch.setattr(os, "preadv", lambda fd, parts, at: preadv(fd, [parts[0][:3]], at))
    assert read_at(str(path), 1, 8) == b"12345678"
    assert read_writable_at(str(path), 1, 8) == b"12345678"


def test_few_files_are_open_at_once(tmp_path: Path):
    """However many segments are read from, the oldest are closed."""
    before = open_descriptors()
    for number in range(200):
        path = tmp_path / str(number)
        path.write_bytes(b"x")
        read_at(str(path), 0, 1)
    assert len(open_descriptors() - before) <= files._OPEN_FILES
    open_file.cache_clear()
    assert open_descriptors() - before == set()


def test_a_file_in_use_is_not_closed_by_the_cache(tmp_path: Path):
    """A reader that holds a file goes on reading from it, whatever the cache does."""
    path = tmp_path / "file"
    path.write_bytes(b"mine")
    file = open_file(str(path))
    open_file.cache_clear()
    (tmp_path / "other").write_bytes(b"yours")
    open_file(str(tmp_path / "other"))
    assert os.pread(file.number, 10, 0) == b"mine"


def test_a_file_that_is_not_there_cannot_be_opened(tmp_path: Path):
    """And leaves nothing to close."""
    with pytest.raises(FileNotFoundError):
        read_at(str(tmp_path / "missing"), 0, 1)


@pytest.mark.slow
def test_more_is_written_than_one_call_can(tmp_path: Path):
    """Linux writes and reads at most 2 GiB at once."""
    data = bytes((2 << 30) + 8192)
    path = tmp_path / "file"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    assert write_all(fd, [b"x", data, b"y"]) == len(data) + 2
    os.close(fd)
    assert path.stat().st_size == len(data) + 2
    whole = read_at(str(path), 1, len(data)) == data
    assert whole  # not in one expression: pytest would show 2 GiB


def test_what_is_appended_while_another_thread_syncs_is_synced_again(tmp_path: Path, monkeypatch):
    """A sync covers what was appended before it began, and no more."""
    begun, go_on, synced = Event(), Event(), []

    def sync(fd):
        synced.append(os.fstat(fd).st_size)
        begun.set()
        assert go_on.wait(60)
        os.fdatasync(fd)

    monkeypatch.setattr(segments, "sync_file", sync)
    with segment_at(tmp_path / "w1.seg") as segment, ThreadPoolExecutor(2) as threads:
        segment.append([b"one"])
        first = threads.submit(segment.sync)
        assert begun.wait(60)
        segment.append([b"two"])
        second = threads.submit(segment.sync)
        go_on.set()
        first.result()
        second.result()
        segment.sync()
    assert synced == [3, 6]


def test_a_sync_that_fails_fails_for_all_that_had_been_appended(tmp_path: Path, monkeypatch):
    """The system tells of it once; the next sync would succeed, and mean nothing."""
    failures = [OSError(errno.EIO, "Input/output error")]

    def sync(fd):
        if failures:
            raise failures.pop()
        os.fdatasync(fd)

    monkeypatch.setattr(segments, "sync_file", sync)
    with segment_at(tmp_path / "w1.seg") as segment:
        segment.append([b"of one task"])
        segment.append([b"of another"])
        for _ in range(2):
            with pytest.raises(StoreError, match="Input/output error"):
                segment.sync()
    assert not failures


def test_values_that_several_threads_append_are_each_whole(tmp_path: Path):
    """Each is where it was said to be."""
    values = [bytes([number]) * (1000 + number) for number in range(200)]
    path = tmp_path / "w1.seg"
    with segment_at(path) as segment, ThreadPoolExecutor(8) as threads:
        places = list(threads.map(lambda value: segment.append([value]), values))
    data = path.read_bytes()
    assert all(
        data[at : at + len(value)] == value for at, value in zip(places, values, strict=True)
    )
