"""The parameters of a request, read at the door: behind it they have the right type and range."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from asyncflow.errors import ParameterError
from asyncflow.events.types import to_microseconds
from asyncflow.page.answers import AskedWrongly
from asyncflow.page.run_rows import UNREADABLE, Choice
from asyncflow.values import Status

if TYPE_CHECKING:
    from starlette.requests import Request

_MOST_TEXT: Final = 1_000
_MOST_BODY_BYTES: Final = 1_000_000
_LENGTH_DIGITS: Final = 20
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_AGE: Final = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)([smhdw])")
_MOST_NUMBER: Final = 1 << 62


def text_in(request: Request, name: str) -> str | None:
    """A parameter as text; None if it is missing or empty."""
    given = request.query_params.get(name)
    if given and len(given) > _MOST_TEXT:
        raise AskedWrongly(400, f"{name} has more than {_MOST_TEXT} characters")
    return given or None


def texts_in(request: Request, name: str) -> list[str]:
    """A parameter that may be repeated."""
    given = [each for each in request.query_params.getlist(name) if each]
    if len(given) > 100 or any(len(each) > _MOST_TEXT for each in given):  # noqa: PLR2004 - as no page does
        raise AskedWrongly(400, f"there are too many of {name}, or too long ones")
    return given


def number_in(
    request: Request, name: str, otherwise: int, *, least: int = 0, most: int = _MOST_NUMBER
) -> int:
    """A whole number in a range."""
    given = request.query_params.get(name)
    if not given:
        return otherwise
    if not re.fullmatch(r"-?[0-9]{1,19}", given) or not least <= int(given) <= most:
        raise AskedWrongly(
            400, f"{name} is to be a whole number from {least} to {most}, not {given[:40]!r}"
        )
    return int(given)


def number_or_none(request: Request, name: str) -> int | None:
    """A whole number of 0 or more; None if it is missing."""
    return None if not request.query_params.get(name) else number_in(request, name, 0)


def one_of(request: Request, name: str, allowed: tuple[str, ...]) -> str:
    """One of these words; the first, if the parameter is missing."""
    given = request.query_params.get(name) or allowed[0]
    if given not in allowed:
        raise AskedWrongly(400, f"{name} is to be {' or '.join(allowed)}, not {given[:40]!r}")
    return given


def statuses_in(request: Request, name: str, *further: str) -> list[str]:
    """Statuses."""
    given = texts_in(request, name)
    allowed = {*map(str, Status), *further}
    for each in given:
        if each not in allowed:
            raise AskedWrongly(
                400, f"there is no status {each[:40]!r}: {', '.join(sorted(allowed))}"
            )
    return given


def moment_in(request: Request, name: str) -> int | None:
    """A time in microseconds since 1970: ISO 8601, or so long ago, such as `2d`."""
    given = text_in(request, name)
    if given is None:
        return None
    try:
        if match := _AGE.fullmatch(given):
            ago = timedelta(seconds=float(match[1]) * _UNITS[match[2]])
            return to_microseconds(datetime.now(UTC) - ago)
        time = datetime.fromisoformat(given)
        return to_microseconds(time if time.tzinfo else time.replace(tzinfo=UTC))
    except (ValueError, OverflowError):
        message = f"{name} is to be a time, as 2026-11-27T08:30, or 2d, 12h, 90m for so long ago"
        raise AskedWrongly(400, message) from None


def choice_in(request: Request) -> Choice:
    """Which runs a list is to have."""
    return Choice(
        flow=text_in(request, "flow"),
        status=statuses_in(request, "status", UNREADABLE),
        tags=texts_in(request, "tag"),
        since=moment_in(request, "since"),
        before=moment_in(request, "before"),
        text=text_in(request, "text") or "",
        limit=number_in(request, "limit", 100, least=1, most=500),
        after=number_or_none(request, "after"),
    )


def run_named(given: object) -> tuple[str, str]:
    """The flow and the id of a run that is named `FLOW/RUN`."""
    parts = given.split("/") if isinstance(given, str) else []
    if len(parts) != 2 or not all(parts):  # noqa: PLR2004 - a flow and a run
        raise AskedWrongly(400, f"a run is named FLOW/RUN, not {str(given)[:100]!r}")
    return parts[0], parts[1]


def runs_in(request: Request) -> list[tuple[str, str]]:
    """The runs that an address names, in its path or as parameters."""
    path = request.path_params
    if "flow" in path and "run" in path:
        return [(path["flow"], path["run"])]
    named = (text_in(request, name) for name in ("a", "b", "run"))
    return [run_named(each) for each in named if each is not None]


def check_length(request: Request) -> None:
    """Refuse a request that says it carries more than any may; nothing of it is read.

    Raises:
        AskedWrongly: It does.
    """
    length = request.headers.get("content-length", "0")
    if not length.isdecimal() or len(length) > _LENGTH_DIGITS or int(length) > _MOST_BODY_BYTES:
        raise _too_long()


def _too_long() -> AskedWrongly:
    return AskedWrongly(413, f"the body is to have at most {_MOST_BODY_BYTES} bytes")


async def body_of(request: Request) -> dict[str, Any]:
    """The JSON object that a request carries; no more of it is read than it may have."""
    import json

    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise AskedWrongly(415, "the body is to be JSON: send Content-Type: application/json")
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MOST_BODY_BYTES:
            raise _too_long()
    try:
        given = json.loads(body or b"{}")
    except (ValueError, RecursionError) as error:
        raise AskedWrongly(400, f"the body is not JSON: {error}") from error
    if not isinstance(given, dict):
        raise AskedWrongly(400, "the body is to be a JSON object")
    return given


def text_of(body: dict[str, Any], name: str) -> str:
    """A text of a body; empty if it is missing or null."""
    given = body.get(name)
    if given is not None and not isinstance(given, str):
        raise AskedWrongly(400, f"{name} is to be text")
    return given or ""


def texts_of(body: dict[str, Any], name: str) -> list[str]:
    """A list of texts of a body; empty if it is missing or null."""
    given = body.get(name) or []
    if not isinstance(given, list) or not all(isinstance(each, str) for each in given):
        raise ParameterError(f"{name} is to be a list of texts")
    return given
