"""Checks the arguments that an application passes to an engine."""

from __future__ import annotations

import inspect
import reprlib
import unicodedata
from collections.abc import Iterable
from typing import Final

from asyncflow.errors import FlowError, ParameterError, ResumeError
from asyncflow.flow.spec import FlowSpec

_BREAKING: Final = {"Cc", "Zl", "Zp"}
"""Control characters, and the two separators of lines."""

_HALF: Final = "Cs"
"""Half a surrogate pair, which is no text; Python has it for a byte that is not UTF-8, too."""


def check_flow(flow: object) -> None:
    """Refuse anything but a flow class.

    Raises:
        FlowError: It says what to give instead.
    """
    if isinstance(flow, type) and issubclass(flow, FlowSpec):
        return
    shown = reprlib.repr(flow)
    if isinstance(flow, FlowSpec):
        name = type(flow).__name__
        message = f"{shown} is an instance of a flow: give the flow class itself, {name}"
    elif isinstance(flow, str):
        message = f"{shown} is text, not a flow: import the flow class from its file and give that"
    else:
        message = f"{shown} is no flow: give a class that extends FlowSpec"
    raise FlowError(message)


def check_tags(tags: Iterable[str]) -> tuple[str, ...]:
    """The tags as they are stored: without duplicates, and sorted.

    Raises:
        ParameterError: They are no list, or one of them is no text of one line.
    """
    given: object = tags
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        shown = reprlib.repr(given)
        message = f"tags is a list of texts, not {shown}: write tags=[{shown}]"
        raise ParameterError(message, parameter="tags")
    found = tuple(tags)
    for tag in found:
        wrong = _wrong_with(tag)
        if wrong:
            message = f"the tag {reprlib.repr(tag)} {wrong}: give a text of one line"
            raise ParameterError(message, parameter="tags")
    return tuple(sorted(set(found)))


def _wrong_with(tag: object) -> str:
    if not isinstance(tag, str):
        return f"is of type {type(tag).__name__!r}"
    if not tag.strip():
        return "is empty"
    categories = {unicodedata.category(character) for character in tag}
    if _HALF in categories:
        return "has a byte that is not UTF-8, or half a surrogate pair, which is no text"
    if categories & _BREAKING:
        return "has a line break or another control character"
    return ""


def check_origin(flow: type[FlowSpec], origin: object) -> str | None:
    """The id of the run that is to be resumed; None, as it was given, for the flow's latest.

    Whether there is such a run is not looked at.

    Raises:
        ResumeError: It names no run, or one of another flow.
    """
    if origin is None:
        return None
    shown = reprlib.repr(origin)
    named = getattr(origin, "pathspec", origin)  # of a `Run`, and of what `Engine.start` gives
    if isinstance(named, int) and not isinstance(named, bool):
        named = str(named)
    parts = named.split("/") if isinstance(named, str) else []
    if not all(parts) or len(parts) not in {1, 2}:
        message = (
            f"{shown} names no run of {flow.__name__}: give a run's id, its pathspec "
            f"({flow.__name__}/ID) or the run itself; without any, the latest run is resumed"
        )
        raise ResumeError(message)
    if parts[:-1] not in ([], [flow.__name__]):
        message = f"{named} is a run of {parts[0]}, and not of {flow.__name__}, which is resumed"
        raise ResumeError(message)
    return parts[-1]


def check_callback(callback: object) -> None:
    """Refuse a callback that cannot be called, or whose code a call would not run.

    Raises:
        TypeError: It is so.
    """
    shown = reprlib.repr(callback)
    if not callable(callback):
        message = f"{shown} cannot be called: give a function that takes an event"
        raise TypeError(message)
    if inspect.isgeneratorfunction(callback) or inspect.isasyncgenfunction(callback):
        message = f"{shown} has a `yield`, so that a call would not run it: leave that out"
        raise TypeError(message)
