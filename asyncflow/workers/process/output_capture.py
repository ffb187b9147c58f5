"""Captures output, and keeps that of the tasks apart.

A worker's descriptors 1 and 2 are *spool files*: append-only, unnamed, one for each stream. Output
from Python, C and subprocesses is there in order, never blocks, survives the worker's death, and
belongs to the `def` task that was running: the file's size when the task ends marks its end.

Concurrent async tasks share the descriptors. So Python's own streams look up the task in the
context, and send its lines to the engine instead. Output of C code cannot be told apart there, and
counts as that of the worker's oldest running task.

A step may close or redirect these descriptors; they are restored for the next task.
"""

from __future__ import annotations

import fcntl
import io
import os
import sys
from contextlib import suppress
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

from asyncflow._support.guarded_descriptor import Descriptor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class Sink(Protocol):
    """Receives the output of one async task."""

    def write(self, stream: int, data: bytes) -> None:
        """Add bytes; 0 is stdout, 1 is stderr."""

    def flush(self, stream: int) -> None:
        """Pass on everything that was written."""


sink: ContextVar[Sink | None] = ContextVar("asyncflow_sink", default=None)


class TaskStream(io.TextIOBase):
    """`sys.stdout` or `sys.stderr` of a worker."""

    def __init__(self, descriptor: int) -> None:
        self._number = descriptor - 1
        self.is_written = False  # whether something may wait in the file's buffer
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
            self.is_written = True
            return self._file.write(text)
        target.write(self._number, text.encode("utf-8", "backslashreplace"))
        return len(text)

    def writelines(self, lines: Iterable[str], /) -> None:  # type: ignore[override] # text only
        """Write several texts in order."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Flush to the file, or to the task that the context names."""
        self.flush_file()
        target = sink.get()
        if target is not None:
            target.flush(self._number)

    def flush_file(self) -> None:
        """Flush to the file, unless nothing was written to it."""
        if self.is_written:
            self._file.flush()
            self.is_written = False

    def close(self) -> None:
        """Flush. No step can close it for the next one."""
        self.flush()

    def fileno(self) -> int:
        """The descriptor below."""
        return self._number + 1

    def isatty(self) -> bool:
        """False: it is a file."""
        return False

    def writable(self) -> bool:
        """True."""
        return True

    def reconfigure(self, **options: object) -> None:
        """Accepted for programs that set encoding or buffering; output is UTF-8, by the line."""

    @property
    def encoding(self) -> str:  # type: ignore[override] # never set
        """`utf-8`."""
        return "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override] # never set
        """How characters are written that UTF-8 cannot encode."""
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
        """Flush the output of the task that the context names."""
        target = sink.get()
        if target is not None:
            target.flush(self._number)

    def close(self) -> None:
        """Flush. A wrapper that a step has made closes it, and it is needed for the next one."""
        self.flush()

    def writable(self) -> bool:
        """True."""
        return True

    def fileno(self) -> int:
        """The descriptor below."""
        return self._raw.fileno()


class LineSink:
    """Collects the output of an async task, as a line-buffered file would, and passes it on."""

    def __init__(self, send: Callable[[int, bytes], None], limit: int = 8192) -> None:
        self._send = send
        self._limit = limit
        self._held = [bytearray(), bytearray()]

    def write(self, stream: int, data: bytes) -> None:
        """Add bytes, and pass output on when a line ends or a carriage return restarts it."""
        held = self._held[stream]
        held += data
        if b"\n" in data or b"\r" in data or len(held) > self._limit:
            self.flush(stream)

    def close(self) -> None:
        """Pass on an unfinished line."""
        self.flush(0)
        self.flush(1)

    def flush(self, stream: int) -> None:
        """Pass on everything so far."""
        held = self._held[stream]
        if held:
            self._send(stream, bytes(held))
            held.clear()


class TaskInput(io.TextIOWrapper):
    """`sys.stdin` of a worker: it is empty, and no step can close it for the next one."""

    def __init__(self) -> None:
        super().__init__(io.FileIO(0, closefd=False), encoding="utf-8")

    def close(self) -> None:
        """Do nothing."""


def install(out: int, err: int) -> None:
    """Make two spool files this process's standard streams, and its input empty.

    Code that has kept the program's streams, such as a logging handler that was made before this
    worker was forked, prints to our streams from now on. Output in their buffers at that time is
    the program's to write.
    """
    null = os.open(os.devnull, os.O_RDWR)
    streams = TaskStream(1), TaskStream(2)
    inherited = (sys.stdout, sys.__stdout__), (sys.stderr, sys.__stderr__)
    for ours, theirs in zip(streams, inherited, strict=True):
        os.dup2(null, ours.fileno())
        for each in theirs:
            _lead(each, ours)
    kept = []
    for number, spool in enumerate((null, out, err)):
        os.dup2(spool, number)
        kept.append(Descriptor(fcntl.fcntl(spool, fcntl.F_DUPFD_CLOEXEC, 3)))
    os.close(null)
    _kept[:] = kept
    sys.stdin = sys.__stdin__ = TaskInput()  # type: ignore[misc] # as a file
    sys.stdout = sys.__stdout__ = streams[0]  # type: ignore[assignment, misc] # as a file
    sys.stderr = sys.__stderr__ = streams[1]  # type: ignore[assignment, misc] # as a file


def _lead(inherited: object, ours: TaskStream) -> None:
    """Redirect one of Python's original streams, which code may have kept, to ours."""
    if type(inherited) is io.TextIOWrapper and _number_of(inherited) == ours.fileno():
        buffer: Any = ours.buffer
        options = {"encoding": ours.encoding, "errors": ours.errors}
        inherited.__init__(buffer, **options, line_buffering=True, write_through=True)  # type: ignore[misc] # once more


def _number_of(stream: io.TextIOWrapper) -> int:
    try:
        return stream.fileno()
    except ValueError:  # it is closed, or has no descriptor
        return -1


_kept: Final[list[Descriptor]] = []
"""Copies of input and of the two spool files; no child of a step inherits these."""


def standard() -> list[tuple[int, Descriptor]]:
    """The standard descriptors, and what should be open there."""
    return list(enumerate(_kept))


def put_back() -> bool:
    """Restore the standard descriptors; False if a step has closed all copies."""
    for number, kept in enumerate(_kept):
        if not kept.is_at(number):
            try:
                kept.check()
                os.dup2(kept.number, number)
            except OSError:
                return False
    return True


def written() -> tuple[int, int]:
    """Sizes of the two spool files now."""
    try:  # a third of what `fstat` takes; nobody uses the position in a file that is appended to
        return os.lseek(1, 0, os.SEEK_END), os.lseek(2, 0, os.SEEK_END)
    except OSError:  # a value's own code has put something else there while it was stored
        return os.fstat(1).st_size, os.fstat(2).st_size


def spooled() -> tuple[int, int]:
    """Sizes of the two spool files, after flushing everything that is buffered."""
    try:
        out, err = sys.stdout, sys.stderr
        if type(out) is type(err) is TaskStream and sink.get() is None:
            if out.is_written:
                out.flush_file()
            if err.is_written:
                err.flush_file()
        else:
            out.flush()
            err.flush()
    except Exception:  # noqa: BLE001 - in the place of our stream there is a step's own, or none
        with suppress(Exception):
            sys.stderr.flush()
    _flush_c()
    return written()


def _no_flush() -> None:
    """Do nothing; used if C's streams cannot be reached."""


_flush_c: Callable[[], object] = _no_flush


def flush_c_streams() -> None:
    """From now on, let `spooled` flush the buffers of C's stdio as well."""
    global _flush_c  # noqa: PLW0603 - decided once, at a worker's start
    try:
        import ctypes

        fflush = ctypes.CDLL(None).fflush
    except (ImportError, OSError, AttributeError):
        return
    fflush.argtypes = [ctypes.c_void_p]
    _flush_c = partial(fflush, None)
