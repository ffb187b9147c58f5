r"""Makes text safe for a terminal if somebody else wrote it: names, messages, output.

A control character can move the cursor, set the title or erase text; an override of the direction
shows letters in another order than they have. Each becomes its escape, such as `\x1b`, which is
visible and harmless. Colours may stay, and then end with their line.
"""

from __future__ import annotations

import re
from typing import Final

_HIDDEN: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 except tab and line feed, DEL, C1
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # overrides of the direction
    "\u2028\u2029\ud800-\udfff]"  # other line ends, and characters that no encoding has
)
_COLOUR: Final = re.compile(r"\x1b\[[0-9;:]*m")
_NO_COLOUR: Final = re.compile(r"\x1b(?!\[[0-9;:]*m)")
_PLAIN: Final = bytes({*b"\t\n\x1b", *range(0x20, 0x7F)})
_SHOWN: Final = bytes({*b"\t\n", *range(0x20, 0x7F)})
_COLOUR_OFF: Final = "\x1b[0m"


def visible(text: str, *, colours: bool = False) -> str:
    """The text with control characters escaped, except tab and line feed."""
    if colours and text.isascii() and not text.encode().translate(None, _PLAIN):
        return _NO_COLOUR.sub(_escape, text)  # nearly always: takes a tenth of the time
    if text.isascii() and not text.encode().translate(None, _SHOWN):
        return text  # a tenth of the time of a search
    if not _HIDDEN.search(text):
        return text
    if not colours:
        return _HIDDEN.sub(_escape, text)
    pieces, at = [], 0
    for colour in _COLOUR.finditer(text):
        pieces += [_HIDDEN.sub(_escape, text[at : colour.start()]), colour[0]]
        at = colour.end()
    return "".join(pieces) + _HIDDEN.sub(_escape, text[at:])


def visible_line(line: str) -> str:
    """The same for text that has to stay on one line."""
    return line if line.isprintable() else visible(line).replace("\n", "\\n")


def visible_output(line: str) -> str:
    """The same for a line that a task printed; its colours stay, and end with it."""
    if line.isprintable():
        return line
    shown = visible(line, colours=True).replace("\n", "\\n")
    return shown + _COLOUR_OFF if "\x1b" in shown else shown


def _escape(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()
