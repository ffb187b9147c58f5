"""What a task prints, kept apart by task.

A worker's descriptors 1 and 2 are *spool files*: append-only, unnamed, one for each stream.
Whatever writes there, Python or C or a subprocess, is in order, never blocks, survives the
worker's death, and belongs to the `def` task that was running: the file's size when the task ends
is the border.

Concurrent async tasks share the descriptors, so Python's own streams look up the task in the
context, and send its lines to the engine instead. What C code prints there cannot be told apart and
is given to the worker's oldest running task.

A step may close these descriptors or lead them elsewhere; for the next task they are put back.
"""

from __future__ import annotations

import fcntl
import io
import os
import sys
from contextlib import suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, Protocol

from asyncflow.descriptors import Descriptor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class Sink(Protocol):
    """Takes what one async task prints."""

    def write(self, stream: int, data: bytes) -> None:
        """Take some bytes; 0 is stdout, 1 is stderr."""

    def flush(self, stream: int) -> None:
        """Hold nothing back of what was written."""


sink: ContextVar[Sink | None] = ContextVar("asyncflow_sink", default=None)


class TaskStream(io.TextIOBase):
    """`sys.stdout` or `sys.stderr` of a worker."""

    def __init__(self, descriptor: int) -> None:
        self._number = descriptor - 1
        raw = io.FileIO(descriptor, "w", closefd=False)
        self._binary = TaskBuffer(raw, self._number)
        self._file = io.TextIOWrapper(
            io.BufferedWriter(raw),
            encoding="utf-8",
            errors="backslashreplace",
            line_buffering=True,
        )

    def write(self, text: str, /) -> int:
        """Write text: to the task that the context names, else to the file."""
        target = sink.get()
        if target is None:
            return self._file.write(text)
        target.write(self._number, text.encode("utf-8", "backslashreplace"))
        return len(text)

    def writelines(self, lines: Iterable[str], /) -> None:  # type: ignore[override] # text only
        """Write one after the other."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Have what is buffered in the file, or with the task that the context names."""
        self._file.flush()
        self._binary.flush()

    def fileno(self) -> int:
        """The descriptor below."""
        return self._number + 1

    def isatty(self) -> bool:
        """Never: it is a file, whatever the engine does with it."""
        return False

    def writable(self) -> bool:
        """Always."""
        return True

    def reconfigure(self, **options: object) -> None:
        """Accepted for programs that set encoding or buffering; output is UTF-8, by the line."""

    @property
    def encoding(self) -> str:  # type: ignore[override] # never set
        """Always UTF-8."""
        return "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override] # never set
        """What becomes of text that UTF-8 cannot say."""
        return "backslashreplace"

    @property
    def line_buffering(self) -> bool:
        """Whether each line is written at once."""
        return True

    @property
    def buffer(self) -> TaskBuffer:
        """The stream of bytes below."""
        self._file.flush()  # keep the order of text and bytes
        return self._binary


class TaskBuffer(io.RawIOBase):
    """The bytes below a `TaskStream`, as `sys.stdout.buffer`."""

    def __init__(self, raw: io.FileIO, number: int) -> None:
        self._raw, self._number = raw, number

    def write(self, data: object, /) -> int:
        """Write bytes: to the task that the context names, else to the file."""
        view = memoryview(data).cast("B")  # type: ignore[arg-type] # any buffer
        target = sink.get()
        if target is None:
            os.write(self._raw.fileno(), view)
        else:
            target.write(self._number, bytes(view))
        return len(view)

    def flush(self) -> None:
        """Have the task that the context names pass on what it was given."""
        target = sink.get()
        if target is not None:
            target.flush(self._number)

    def writable(self) -> bool:
        """Always."""
        return True

    def fileno(self) -> int:
        """The descriptor below."""
        return self._raw.fileno()


class LineSink:
    """Gathers what an async task prints, as a line-buffered file would, and hands it on."""

    def __init__(self, send: Callable[[int, bytes], None], limit: int = 8192) -> None:
        self._send = send
        self._limit = limit
        self._held = [bytearray(), bytearray()]

    def write(self, stream: int, data: bytes) -> None:
        """Take some bytes, and pass on what is there when a line ends, or begins anew."""
        held = self._held[stream]
        held += data
        if b"\n" in data or b"\r" in data or len(held) > self._limit:
            self.flush(stream)

    def close(self) -> None:
        """Pass on what has no line end."""
        self.flush(0)
        self.flush(1)

    def flush(self, stream: int) -> None:
        """Pass on what is there."""
        held = self._held[stream]
        if held:
            self._send(stream, bytes(held))
            held.clear()


def install(out: int, err: int) -> None:
    """Make two spool files this process's standard streams."""
    with open(os.devnull, "rb") as null:  # noqa: PTH123 - a descriptor is what is wanted
        os.dup2(null.fileno(), 0)
    kept = []
    for number, spool in ((1, out), (2, err)):
        os.dup2(spool, number)
        kept.append(Descriptor(fcntl.fcntl(spool, fcntl.F_DUPFD_CLOEXEC, 3)))
    _kept[:] = kept
    sys.stdout = sys.__stdout__ = TaskStream(1)  # type: ignore[assignment, misc] # as a file
    sys.stderr = sys.__stderr__ = TaskStream(2)  # type: ignore[assignment, misc] # as a file


_kept: Final[list[Descriptor]] = []
"""The two spool files once more; no child of a step inherits these."""


def put_back() -> bool:
    """Have the standard descriptors be what they were; False if a step has closed all of them."""
    for number, kept in enumerate(_kept, 1):
        if not kept.is_at(number):
            try:
                _open_null()
                kept.check()
                os.dup2(kept.number, number)
            except OSError:
                return False
    return True


def _open_null() -> None:
    """Have something at 0: no file that is opened next shall be a child's standard input."""
    try:
        os.fstat(0)
    except OSError:
        null = os.open(os.devnull, os.O_RDONLY)  # takes the lowest number that is free
        os.set_inheritable(null, True)  # noqa: FBT003 - positional only


def written() -> tuple[int, int]:
    """Sizes of the two spool files as they are."""
    return os.fstat(1).st_size, os.fstat(2).st_size


def spooled() -> tuple[int, int]:
    """Sizes of the two spool files, after everything that is still buffered is in them."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):  # a step's own, in our stream's place
            stream.flush()
    _flush_c()
    return written()


def _no_flush() -> None:
    """Where C's streams cannot be reached."""


_flush_c = _no_flush


def flush_c_streams() -> None:
    """From now on `spooled` empties the buffers of C's stdio as well."""
    global _flush_c  # noqa: PLW0603 - decided once, at a worker's start
    try:
        import ctypes  # noqa: PLC0415 - start-up time: only workers need it

        fflush = ctypes.CDLL(None).fflush
    except (ImportError, OSError, AttributeError):
        return
    fflush.argtypes = [ctypes.c_void_p]
    _flush_c = lambda: fflush(None)  # noqa: E731 - bound to the symbol just found
