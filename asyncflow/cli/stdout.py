"""Has an error of the standard output say that it is one: a bare errno tells of no file."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

if TYPE_CHECKING:
    from collections.abc import Iterator

STANDARD_OUTPUT: Final = "standard output"
"""What the error has in place of a file's name."""


class _NamedStream:
    """A stream as it is, but for the name in its errors."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.error: OSError | None = None
        """What it could not take first; whoever wrote that may have passed it over."""

    def write(self, text: str) -> int:
        with self._naming():
            return self._stream.write(text)

    def flush(self) -> None:
        with self._naming():
            self._stream.flush()

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
        """What is still held is written at the interpreter's end, which would complain again."""
        with suppress(OSError), Path(os.devnull).open("w") as null:
            os.dup2(null.fileno(), self._stream.fileno())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def named_stdout() -> Iterator[None]:
    """Within the block, and at its end, what `sys.stdout` cannot take is an error with its name."""
    stream: TextIO | None = sys.stdout  # None where we were started without one
    if stream is None:
        yield
        return
    named: Any = _NamedStream(stream)
    sys.stdout = named
    try:
        yield
        sys.stdout.flush()
        if named.error is not None:  # libraries write nothing at all, to see what a stream is
            raise named.error
    finally:
        if sys.stdout is named:  # else its reader has gone, and click has silenced it
            sys.stdout = stream


def cannot_write(reason: str | None) -> str:
    """The text of such an error."""
    return f"{STANDARD_OUTPUT} cannot be written to: {reason}"
