"""Divides a task's output into lines, and lines that are too long into pieces."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

PIECE_BYTES: Final = (
    65536  # a longer line is divided, so that nobody has to hold gigabytes of one line
)


def split_pieces(data: bytes) -> list[bytes]:
    """Cut output into lines, each with its line end, none longer than `PIECE_BYTES`."""
    lines = data.splitlines(keepends=True) if b"\r" not in data else _split_newlines(data)
    if len(data) <= PIECE_BYTES:
        return lines
    return [piece for line in lines for piece in _split_long(line)]


def _split_long(line: bytes) -> Iterator[bytes]:
    at = 0  # one walk through the line: cutting pieces off the rest would take quadratic time
    while len(line) - at > PIECE_BYTES:
        length = whole_characters(line[at : at + PIECE_BYTES])
        yield line[at : at + length]
        at += length
    yield line[at:]


def whole_characters(data: bytes) -> int:
    """How many leading bytes of `data` do not end within a UTF-8 character."""
    for back in range(1, min(4, len(data) + 1)):
        byte = data[-back]
        if byte >= 0xC0:  # noqa: PLR2004 - the first byte of a character of 2, 3 or 4 bytes
            length = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4  # noqa: PLR2004 - UTF-8's own
            return len(data) - back if back < length else len(data)
        if byte < 0x80:  # noqa: PLR2004 - ASCII: complete by itself
            break
    return len(data)


def _split_newlines(data: bytes) -> list[bytes]:
    # bytes.splitlines also splits at \r, which in a progress bar does not end the line
    lines = [line + b"\n" for line in data.split(b"\n")]
    last = lines.pop()[:-1]
    return [*lines, last] if last else lines


def count_pieces(data: bytes) -> int:
    """How many pieces `split_pieces` makes; cheaper than making them."""
    if len(data) > PIECE_BYTES:
        return len(split_pieces(data))
    return data.count(b"\n") + (not data.endswith(b"\n"))


def split_lines(data: bytes) -> list[tuple[str, str]]:
    """The text of each piece of `split_pieces`, and separately its line end."""
    if b"\r" not in data and len(data) <= PIECE_BYTES:
        try:
            *lines, last = data.decode().split("\n")
        except UnicodeDecodeError:
            pass
        else:
            ended = [(line, "\n") for line in lines]
            return [*ended, (last, "")] if last else ended
    return [split_end(piece) for piece in split_pieces(data)]


def split_end(piece: bytes) -> tuple[str, str]:
    """The text of a piece of output, and separately its line end."""
    text = piece.decode("utf-8", "backslashreplace")
    for end in ("\r\n", "\n"):
        if text.endswith(end):
            return text[: -len(end)], end
    return text, ""
