"""Maps files into memory, copy-on-write, and finds out which pages were written to.

A private mapping shares the pages of the file's cache until a page is written to. Then the kernel
puts a copy in its place, and shows that in /proc/self/pagemap: bit 61 ("page is file-page") is
clear. So an array of gigabytes that a step has only read is known to be unchanged without being
read again.
"""

from __future__ import annotations

import mmap
import os
import sys
from functools import cache
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from types import ModuleType

_ENTRY_BYTES: Final = 8  # /proc/self/pagemap has one u64 for each page
_READ_BYTES: Final = 1 << 20  # entries of 512 MiB in one read
_TOP: Final = _ENTRY_BYTES - 1 if sys.byteorder == "little" else 0
_PRESENT, _SWAPPED, _FILE = 0x80, 0x40, 0x20  # bits 63, 62 and 61, in an entry's top byte
_CLEAN: Final = bytes(
    byte for byte in range(256) if byte & _FILE or not byte & (_PRESENT | _SWAPPED)
)
"""The top byte of an entry whose page is the file's own, or not in memory at all."""


def address_of(data: Any) -> int:
    """The address of a contiguous buffer's memory, which may be read-only."""
    address: int = _memory().address_of(data)
    return address


def map_file(fd: int, offset: int, size: int) -> memoryview:
    """Map a range of a file: changes to the memory stay in this process and never reach the file.

    The mapping holds no open file, and stays valid when the file is closed or deleted.

    Raises:
        OSError: The file cannot be mapped.
    """
    before = offset % mmap.ALLOCATIONGRANULARITY
    mapping = _map(fd, offset - before, size + before)
    return memoryview(mapping)[before:]


def _map(fd: int, offset: int, size: int) -> mmap.mmap:
    if sys.version_info >= (3, 13):
        return mmap.mmap(fd, size, access=mmap.ACCESS_COPY, offset=offset, trackfd=False)
    # Before 3.13 a mapping keeps a duplicate of the descriptor, and a join over some thousand large
    # values would run out of them. So reserve the range, and map the file over it.
    mapping = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    _memory().map_over(mapping, fd, offset)
    return mapping


@cache
def _memory() -> ModuleType:
    from asyncflow.store import raw_memory

    return raw_memory


def is_written(address: int, size: int) -> bool | None:
    """Whether any page of a private file mapping has been written to; None if that is unknown.

    Never False for memory that was written to. May be True for memory that was not.
    """
    return _any_private(address, size) if _can_tell() else None


@cache
def _can_tell() -> bool:
    # A sandbox may show a pagemap of zeros, in which every page looks untouched.
    with mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as sample:
        sample[0] = 1
        return _any_private(address_of(sample), mmap.PAGESIZE) is True


def _any_private(address: int, size: int) -> bool | None:
    first = address // mmap.PAGESIZE
    end = -(-(address + size) // mmap.PAGESIZE) * _ENTRY_BYTES
    at = first * _ENTRY_BYTES
    try:
        fd = os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        while at < end:
            entries = os.pread(fd, min(_READ_BYTES, end - at), at)
            if not entries or len(entries) % _ENTRY_BYTES:
                return None
            # The top byte of each entry; then drop the clean ones and see whether any is left: 0.4
            # ms for the 65,536 pages of 256 MiB, half of it in the kernel.
            if entries[_TOP::_ENTRY_BYTES].translate(None, _CLEAN):
                return True
            at += len(entries)
    except OSError:
        return None
    finally:
        os.close(fd)
    return False
