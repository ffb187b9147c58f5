"""How long a task waits before its next attempt."""

from __future__ import annotations

from typing import Any, Final

from blake3 import blake3

# thirty years: a growing backoff must not exceed what a clock can express
_LONGEST_WAIT: Final = 1e9


def retry_seconds(options: Any, name: str, attempt: int) -> float:
    """The wait after this attempt of the named task, in seconds, as the step's `@retry` says.

    The jitter is derived from the name and the attempt: a replay waits as long as the run did, and
    tasks of any runs wait independently. No wait exceeds `max_seconds`; waits that would are spread
    below it.
    """
    try:
        seconds: float = options["seconds"] * options["backoff"] ** attempt
    except OverflowError:
        seconds = _LONGEST_WAIT if options["seconds"] else 0.0
    most = _LONGEST_WAIT if options["max_seconds"] is None else options["max_seconds"]
    seconds = min(seconds, most)
    if options["jitter"]:
        drawn = int.from_bytes(blake3(f"{name}/{attempt}".encode()).digest(4), "big") / 0xFFFFFFFF
        seconds *= 1 + options["jitter"] * (2 * drawn - 1)
    return min(seconds, max(0.0, 2 * most - seconds))
