from __future__ import annotations

import ctypes
import mmap
import os
from typing import TYPE_CHECKING

import numpy as np
import pytest

from asyncflow.store import mapped_files
from asyncflow.store.mapped_files import address_of, is_written, map_file
from tests.support.leftovers import open_descriptors

if TYPE_CHECKING:
    from pathlib import Path

PAGE = mmap.PAGESIZE

needs_pagemap = pytest.mark.skipif(
    not mapped_files._can_tell(), reason="this system does not tell which pages were written to"
)


@pytest.fixture
def mapped(tmp_path: Path) -> memoryview:
    """1,000 pages of a file, mapped; the file is closed and deleted."""
    path = tmp_path / "file"
    path.write_bytes(os.urandom(PAGE) * 1000)
    fd = os.open(path, os.O_RDONLY)
    view = map_file(fd, 0, 1000 * PAGE)
    os.close(fd)
    path.unlink()
    return view


def test_an_address_is_that_of_the_memory(mapped: memoryview):
    """Of writable and read-only buffers, from any offset on."""
    array = np.arange(100)
    assert address_of(array) == array.__array_interface__["data"][0]
    assert address_of(array[3:]) == address_of(array) + 3 * array.itemsize
    assert ctypes.string_at(address_of(b"read-only"), 4) == b"read"
    assert ctypes.string_at(address_of(mapped), 100) == mapped[:100]
    with pytest.raises((BufferError, ValueError)):
        address_of(array[::2])


def test_a_mapping_outlives_its_file(mapped: memoryview):
    """Closing and deleting the file leaves the memory as it was."""
    assert mapped[:PAGE] == mapped[-PAGE:]


def test_a_mapping_holds_no_open_file(tmp_path: Path):
    """A thousand mapped values do not use up a thousand of the files that a process may open."""
    (tmp_path / "file").write_bytes(b"x" * PAGE)
    fd = os.open(tmp_path / "file", os.O_RDONLY)
    before = open_descriptors()
    views = [map_file(fd, 0, PAGE) for _ in range(100)]
    assert open_descriptors() - before == set()
    assert {bytes(view[:1]) for view in views} == {b"x"}
    os.close(fd)


def test_any_range_can_be_mapped(tmp_path: Path):
    """The system maps whole pages; the caller need not care."""
    data = os.urandom(5 * PAGE)
    (tmp_path / "file").write_bytes(data)
    fd = os.open(tmp_path / "file", os.O_RDONLY)
    for offset, size in [(0, 1), (1, PAGE), (PAGE - 1, 2), (3 * PAGE, 2 * PAGE), (5, 4 * PAGE)]:
        assert map_file(fd, offset, size) == data[offset : offset + size]
    os.close(fd)


def test_changes_stay_in_the_process(tmp_path: Path):
    """Memory is writable though the file is not, and the file never sees it."""
    path = tmp_path / "file"
    path.write_bytes(b"stored")
    path.chmod(0o444)
    fd = os.open(path, os.O_RDONLY)
    view = map_file(fd, 0, 6)
    view[:1] = b"S"
    assert bytes(view) == b"Stored"
    assert path.read_bytes() == b"stored"
    os.close(fd)


def test_what_cannot_be_mapped_is_an_error():
    """A pipe has no pages."""
    reading, writing = os.pipe()
    with pytest.raises((OSError, ValueError)):
        map_file(reading, 0, PAGE)
    os.close(reading)
    os.close(writing)


@needs_pagemap
def test_reading_is_not_writing(mapped: memoryview):
    """Neither untouched nor read pages count as written to."""
    assert is_written(address_of(mapped), len(mapped)) is False
    assert sum(mapped[:: PAGE // 2]) > 0
    assert is_written(address_of(mapped), len(mapped)) is False


@needs_pagemap
@pytest.mark.parametrize("at", [0, 1, PAGE - 1, PAGE, 500 * PAGE + 7, 1000 * PAGE - 1])
@pytest.mark.parametrize("read_first", [True, False])
def test_one_byte_written_is_seen(mapped: memoryview, at, read_first):
    """Wherever it is, and whether its page was there before or not, even if it is the same byte."""
    if read_first:
        sum(mapped[::PAGE])
    mapped[at] = mapped[at]
    assert is_written(address_of(mapped), len(mapped)) is True


@needs_pagemap
def test_only_the_range_is_looked_at(mapped: memoryview):
    """What was written before and behind it does not matter."""
    base = address_of(mapped)
    mapped[0] = mapped[-1] = 1
    assert is_written(base + PAGE, len(mapped) - 2 * PAGE) is False
    assert is_written(base + PAGE - 1, 1) is True
    assert is_written(base + len(mapped) - PAGE - 1, 1) is False


@needs_pagemap
def test_large_ranges_are_looked_at_in_pieces(mapped: memoryview, monkeypatch):
    """The last piece counts like the first."""
    monkeypatch.setattr(mapped_files, "_READ_BYTES", 80)
    assert is_written(address_of(mapped), len(mapped)) is False
    mapped[-1] = 1
    assert is_written(address_of(mapped), len(mapped)) is True


def test_where_nobody_can_tell_it_says_so(mapped: memoryview, monkeypatch):
    """Without a pagemap, or with one that shows nothing, it gives no answer, and no wrong one."""
    mapped_files._can_tell.cache_clear()
    monkeypatch.setattr(os, "pread", lambda fd, size, at: bytes(size))
    assert is_written(address_of(mapped), len(mapped)) is None
    mapped_files._can_tell.cache_clear()
    monkeypatch.setattr(os, "open", lambda *_: (_ for _ in ()).throw(PermissionError()))
    assert is_written(address_of(mapped), len(mapped)) is None
    mapped_files._can_tell.cache_clear()
    monkeypatch.undo()
    for answer in (b"", b"short"):
        with monkeypatch.context() as patch:
            patch.setattr(os, "pread", lambda fd, size, at, answer=answer: answer)
            assert mapped_files._any_private(address_of(mapped), PAGE) is None
