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


def hide(secrets: Iterable[str], files: Mapping[str, bytes]) -> dict[str, bytes]:
    """The same files without these texts; the shortest ones are left as they are."""
    found = {each.strip() for each in secrets}
    longest_first = sorted((each for each in found if len(each) >= _SHORTEST), key=len)[::-1]
    return {name: _hidden(longest_first, content) for name, content in files.items()}


def _hidden(secrets: Iterable[str], content: bytes) -> bytes:
    encoding = _encoding_of(content)
    for each in secrets:
        pattern = b"".join(_ways_to_write(part, encoding) for part in _PART.findall(each))
        content = re.sub(pattern.removeprefix(_SEAM), _HIDDEN, content)
    return content


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
