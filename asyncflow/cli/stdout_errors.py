"""All output of a command: control characters are escaped here, and errors name the stream.

Somebody else wrote the names, messages and output in a store. So `sys.stdout` and `sys.stderr` make
all control characters visible, and escape what their encoding does not have. What a command draws,
and what a task printed, is written with `draw_on_stderr` and `print_output`.
"""

from __future__ import annotations

import errno
import os
import sys
from contextlib import contextmanager, suppress
from io import TextIOBase, TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

import click

from asyncflow._support.terminal_text import visible

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

STANDARD_OUTPUT: Final = "standard output"
"""Stands in an error for a file's name."""


class _VisibleStream:
    """A stream that shows control characters instead of sending them."""

    encoding: Final = "utf-8"  # it accepts all text; click bypasses a stream that is ASCII only

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")

    def write(self, text: str) -> int:
        self.send(visible(text))
        return len(text)

    def send(self, text: str) -> None:
        self.stream.write(text)

    def send_bytes(self, data: bytes) -> None:
        """Write bytes as they are, after all text before them."""
        self.stream.flush()
        self.stream.buffer.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


class _NamedStream(_VisibleStream):
    """The same, with the stream's name in its errors."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self.error: OSError | None = None
        """The first write error; the writing code may have ignored it."""

    def send(self, text: str) -> None:
        with self._naming():
            self.stream.write(text)

    def send_bytes(self, data: bytes) -> None:
        """Write bytes as they are, after all text before them."""
        with self._naming():
            super().send_bytes(data)

    def flush(self) -> None:
        with self._naming():
            self.stream.flush()

    @contextmanager
    def _naming(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            error.filename = STANDARD_OUTPUT
            self.error = self.error or error
            self._drop_rest()
            raise

    def _drop_rest(self) -> None:
        """Drop buffered text: it would be written when the interpreter ends, and fail again."""
        with suppress(OSError), Path(os.devnull).open("w") as null:
            os.dup2(null.fileno(), self.stream.fileno())


class _ClosedStream(TextIOBase):
    """In place of a standard output that the program was started without."""

    def write(self, text: str) -> int:
        if text:  # libraries write an empty text to find out what a stream is
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return 0


@contextmanager
def visible_stderr() -> Iterator[None]:
    """Within the block, `sys.stderr` shows control characters instead of sending them."""
    stream: TextIO | None = sys.stderr
    if stream is None:
        yield
        return
    shown: Any = _VisibleStream(stream)
    sys.stderr = shown
    try:
        yield
    finally:
        sys.stderr = stream


def print_lines(lines: Iterable[str]) -> None:
    """Write lines one by one, each with its end."""
    for line in lines:
        sys.stdout.write(f"{line}\n")


def print_output(text: str, *, raw: bool = False, to_stderr: bool = False) -> None:
    """Write a task's output: visible with its colours on a terminal, else unchanged."""
    stream: Any = sys.stderr if to_stderr else sys.stdout
    if stream is None:
        return
    on_terminal = not raw and stream.isatty()
    _sender_of(stream)(visible(text, colours=True) if on_terminal else text)


def takes_bytes(*, to_stderr: bool) -> bool:
    """Whether a standard stream goes to a file or a pipe, so that output need not be text."""
    stream: Any = sys.stderr if to_stderr else sys.stdout
    known = isinstance(stream, _VisibleStream) and hasattr(stream, "buffer")
    return known and not stream.isatty()


def refuse_terminal(what: str, arguments: str) -> None:
    """Refuse to write a page of HTML onto a terminal.

    Raises:
        UsageError: Standard output is a terminal; the error says which arguments name a file.
    """
    if sys.stdout is not None and sys.stdout.isatty():
        message = f"{what} is HTML, which is not for a terminal: write it to a file ({arguments})"
        raise click.UsageError(f"{message}, or into a pipe")


def print_bytes(data: bytes, *, to_stderr: bool) -> None:
    """Write a task's output to a stream that `takes_bytes`."""
    stream: Any = sys.stderr if to_stderr else sys.stdout
    stream.send_bytes(data)


def draw_on_stderr(text: str) -> None:
    """Write what a command draws itself, such as a line that it redraws."""
    _sender_of(sys.stderr)(text)
    sys.stderr.flush()


def encoding_of(stream: Any) -> str:
    beneath = stream.stream if isinstance(stream, _VisibleStream) else stream
    return getattr(beneath, "encoding", None) or "utf-8"


def _sender_of(stream: Any) -> Any:
    return stream.send if isinstance(stream, _VisibleStream) else stream.write


@contextmanager
def named_stdout() -> Iterator[None]:
    """Within the block, and at its end, what `sys.stdout` cannot take is an error with its name."""
    stream: Any = sys.stdout  # None if the program was started without one
    beneath: Any = _ClosedStream() if stream is None else stream
    named: Any = _NamedStream(beneath)
    sys.stdout = named
    try:
        yield
        sys.stdout.flush()
        if named.error is not None:  # libraries write an empty text to find out what a stream is
            raise named.error
    finally:
        if sys.stdout is named:  # otherwise its reader is gone, and click has silenced it
            sys.stdout = stream


def cannot_write(reason: str | None) -> str:
    return f"{STANDARD_OUTPUT} cannot be written to: {reason}"
