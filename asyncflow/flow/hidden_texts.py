"""Puts asterisks in the place of secrets in source code, however they are written there.

A literal may write a character as itself or with a backslash, and a long one may go on in the next
line. So a secret is looked for as a pattern of its characters. What the source computes, such as
the sum of two variables, is not found.
"""

from __future__ import annotations

import codecs
import json
import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_SHORTEST: Final = 6  # what is shorter is a number or a switch, and stands everywhere
_HIDDEN: Final = b"******"
# Where a literal ends and the next begins, or its line does. The numbers bound what a search costs.
_SEAM: Final = rb"""(?>["']{1,3}[\s+\\]{0,200}[rbufRBUF]{0,2}["']{1,3}|\\\r?\n)?"""
_LINE_BREAK: Final = rb"\r?\n[ \t]{0,200}"  # a text that is dedented later is indented in the file
_PART: Final = re.compile(r"\\+|[^\\]")
_CODING: Final = re.compile(rb"(?:[^\n]*\n)?[ \t\f]*#[^\n]*?coding[:=][ \t]*([-_.a-zA-Z0-9]+)")


def hide(
    secrets: Iterable[str], files: Mapping[str, bytes]
) -> tuple[dict[str, bytes], dict[str, list[tuple[int, bytes]]]]:
    """The same files without these texts; the shortest ones are left as they are.

    Also, by the names of the files, where each hidden text was, in what is returned, and how it was
    written.
    """
    found = {each.strip() for each in secrets}
    longest_first = sorted((each for each in found if len(each) >= _SHORTEST), key=len)[::-1]
    shown, hidden = {}, {}
    for name, content in files.items():
        shown[name], places = _hidden(longest_first, content)
        if places:
            hidden[name] = places
    return shown, hidden


def show(
    hidden: Mapping[str, Iterable[tuple[int, bytes]]], files: Mapping[str, bytes]
) -> dict[str, bytes]:
    """The files with hidden texts as they were before `hide`.

    Raises:
        ValueError: The places do not belong to these files.
    """
    return {name: _shown(places, files.get(name, b"")) for name, places in hidden.items()}


def _shown(places: Iterable[tuple[int, bytes]], content: bytes) -> bytes:
    parts: list[bytes] = []
    at = 0
    for begin, text in places:
        end = begin + len(_HIDDEN)
        if begin < at or content[begin:end] != _HIDDEN:
            message = "it has no asterisks where a text was hidden"
            raise ValueError(message)
        parts += content[at:begin], text
        at = end
    return b"".join([*parts, content[at:]])


def _hidden(secrets: Iterable[str], content: bytes) -> tuple[bytes, list[tuple[int, bytes]]]:
    encoding = _encoding_of(content)
    parts = [content]  # what stays and what is hidden, in turn
    for each in secrets:
        pattern = b"".join(_ways_to_write(part, encoding) for part in _PART.findall(each))
        search = re.compile(b"(" + pattern.removeprefix(_SEAM) + b")")
        parts = [
            piece
            for number, part in enumerate(parts)
            for piece in (search.split(part) if number % 2 == 0 else [part])
        ]
    shown, places, at = [], [], 0
    for number, part in enumerate(parts):
        if number % 2:
            places.append((at, part))
        shown.append(_HIDDEN if number % 2 else part)
        at += len(shown[-1])
    return b"".join(shown), places


def _ways_to_write(part: str, encoding: str) -> bytes:
    """A pattern for a character, or for backslashes, in Python, in JSON or in plain text.

    Two ways never begin alike, or a search could take forever: so no seam is looked for where a
    quote or a backslash may stand for itself.
    """
    if part[0] == "\\":
        return rb"\\{%d,%d}" % (len(part), 2 * len(part))
    number = ord(part)
    escapes = rf"\\x{number:02x}|\\u{number:04x}|\\U{number:08x}|\\{number:03o}"
    ways = [f"(?i:{escapes})".encode()]
    quoted = {f"\\{part}"} if part in "\"'" else {repr(part)[1:-1], json.dumps(part)[1:-1]}
    for text in sorted({part, *quoted}):
        for each in ("utf-8", encoding):
            try:
                ways.append(re.escape(text.encode(each)))
            except UnicodeError:  # no file of this encoding has it
                continue
    if part == "\n":
        ways.append(_LINE_BREAK)
    seam = b"" if part in "\"'" else _SEAM
    return seam + b"(?:" + b"|".join(dict.fromkeys(ways)) + b")"


def _encoding_of(content: bytes) -> str:
    """The encoding that a file of Python declares in one of its first two lines."""
    declared = _CODING.match(content)
    name = declared[1].decode() if declared else "utf-8"
    try:
        return codecs.lookup(name).name
    except LookupError:
        return "utf-8"
