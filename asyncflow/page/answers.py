"""What all answers have in common: JSON of a bounded size, cut texts, and errors in words."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, Final

from starlette.responses import Response

from asyncflow.errors import (
    ArtifactError,
    AsyncflowError,
    NotFoundError,
    NotInstalledError,
    ParameterError,
    ResumeError,
    RunNotActiveError,
    SettingsError,
    StoreError,
    TagError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

MOST_BYTES: Final = 200_000
"""The most bytes of an answer."""
ROOM_BYTES: Final = 180_000
"""The most bytes of the list that an answer is about; the rest is for what stands around it."""


class AskedWrongly(Exception):
    """A request that cannot be answered: the status, why, and what would help."""

    def __init__(self, status: int, message: str, do: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.do = status, message, do


class Json(Response):
    """A JSON answer, which nobody keeps."""

    media_type = "application/json"

    def __init__(self, data: Any, status: int = 200) -> None:
        super().__init__(data, status, headers={"Cache-Control": "no-store"})

    def render(self, content: Any) -> bytes:
        """The JSON as bytes; bytes are JSON already."""
        return content if isinstance(content, bytes) else to_bytes(content)


_encode: Final = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":")
).encode  # `dumps` makes a new one each time


def to_bytes(data: Any) -> bytes:
    """Plain data as JSON. A number that JSON lacks becomes null; half a character, a `?`."""
    try:
        text = _encode(data)
    except ValueError:
        text = json.dumps(_finite(data), ensure_ascii=False, separators=(",", ":"))
    return encoded(text)


def encoded(text: str) -> bytes:
    """JSON as bytes that every client takes for one line; half a character becomes a `?`.

    JSON allows these three within a text, and `str.splitlines` of Python ends a line there, with
    which clients divide a stream of events.
    """
    if not text.isascii():
        for end, escape in _LINE_ENDS:
            text = text.replace(end, escape)
    return text.encode("utf-8", "replace")


_LINE_ENDS: Final = (("\x85", "\\u0085"), ("\u2028", "\\u2028"), ("\u2029", "\\u2029"))


def _finite(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def size_of(data: Any) -> int:
    """How many bytes plain data has as JSON."""
    return len(to_bytes(data))


def cut(text: str, most: int) -> str:
    """A text with at most so many characters; what is cut off shows as `…`."""
    return text if len(text) <= most else text[: max(most - 1, 0)] + "…"


def fitting(rows: Iterable[Any], room: int = ROOM_BYTES) -> tuple[list[Any], bool]:
    """As many rows as fit into so many bytes, and whether those are all of them."""
    taken: list[Any] = []
    for row in rows:
        room -= size_of(row) + 1
        if room < 0:
            return taken, False
        taken.append(row)
    return taken, True


def shrink(data: dict[str, Any], ways: Sequence[Callable[[dict[str, Any]], object]]) -> None:
    """Make plain data fit into an answer: as long as it does not, the next way is taken."""
    for make_smaller in ways:
        if size_of(data) <= MOST_BYTES:
            break
        make_smaller(data)


# --- errors -----------------------------------------------------------------------------------


def error_answer(error: Exception) -> Json:
    """An error as an answer. One that nobody has foreseen is none of the client's business."""
    status, message, do = _told(error)
    return Json({"error": {"status": status, "message": cut(message, 20_000), "do": do}}, status)


_STATUSES: Final = (
    ((NotFoundError,), 404),
    ((RunNotActiveError, ResumeError), 409),
    ((ParameterError, TagError, SettingsError), 400),
    ((StoreError, ArtifactError, NotInstalledError, OSError), 422),
    ((AsyncflowError,), 409),
)
"""The status for each kind of error: the first that fits."""


def _told(error: Exception) -> tuple[int, str, str | None]:
    if isinstance(error, AskedWrongly):
        return error.status, error.message, error.do
    for kinds, status in _STATUSES:
        if isinstance(error, kinds):
            return status, *problem_of(error)
    return 500, "the page has failed; the log of its server says why", None


def problem_of(error: Exception) -> tuple[str, str | None]:
    """What is wrong with a run or a value, and the command that helps.

    Errors of the store end with that command.
    """
    message = str(error)
    head, found, command = message.rpartition(": asyncflow ")
    if found and "\n" not in command:
        return head.rpartition(". ")[0] or head, f"asyncflow {command}"
    return message, None
