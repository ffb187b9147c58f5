"""What Python's `mmap` lacks: addresses of memory, and mapping a file at an address."""

from __future__ import annotations

import ctypes
import mmap
import os
from typing import Any, Final

_MAP_FIXED: Final = 0x10  # the same on Linux, macOS and the BSDs, but missing in the module mmap


class _PyBuffer(ctypes.Structure):
    """`Py_buffer` of the C API, part of the stable ABI since Python 3.11."""

    _fields_ = (
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.c_void_p),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_void_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    )


_mmap: Final = ctypes.CDLL(None, use_errno=True).mmap
_mmap.restype = ctypes.c_void_p
_mmap.argtypes = (
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_ssize_t,  # off_t, which has this width on every 64-bit system
)


def address_of(data: Any) -> int:
    """The address of a contiguous buffer's memory, which may be read-only."""
    view = _PyBuffer()
    ctypes.pythonapi.PyObject_GetBuffer(ctypes.py_object(data), ctypes.byref(view), 0)
    try:
        return view.buf or 0
    finally:
        ctypes.pythonapi.PyBuffer_Release(ctypes.byref(view))


def map_over(mapping: mmap.mmap, fd: int, offset: int) -> None:
    """Map a range of a file, copy-on-write, over an anonymous mapping.

    Raises:
        OSError: The file cannot be mapped.
    """
    address = address_of(mapping)
    protection = mmap.PROT_READ | mmap.PROT_WRITE
    flags = mmap.MAP_PRIVATE | _MAP_FIXED
    if _mmap(address, len(mapping), protection, flags, fd, offset) != address:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
