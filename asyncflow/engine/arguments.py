"""Checks the arguments that an application passes to an engine."""

from __future__ import annotations

import inspect
import reprlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

from asyncflow.engine.run_handle import RunHandle
from asyncflow.errors import FlowError, ParameterError, ResumeError
from asyncflow.flow.spec import FlowSpec
from asyncflow.store.run_tags import wrong_with_tag

if TYPE_CHECKING:
    from asyncflow.store.interface import RunStore


def check_flow(flow: object) -> None:
    """Refuse anything but a flow class.

    Raises:
        FlowError: The message says what to give instead.
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
        message = f"{shown} is not a flow: give a class that extends FlowSpec"
    raise FlowError(message)


def check_tags(tags: Iterable[str]) -> tuple[str, ...]:
    """The tags as they are stored: without duplicates, and sorted.

    Raises:
        ParameterError: They are not a list, or one of them is not a line of text.
    """
    given: object = tags
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        shown = reprlib.repr(given)
        message = f"tags must be a list of texts, not {shown}: write tags=[{shown}]"
        raise ParameterError(message, parameter="tags")
    found = tuple(tags)
    for tag in found:
        wrong = wrong_with_tag(tag)
        if wrong:
            message = f"the tag {reprlib.repr(tag)} {wrong}: give a text of one line"
            raise ParameterError(message, parameter="tags")
    return tuple(sorted(set(found)))


def check_origin(flow: type[FlowSpec], origin: object) -> str | None:
    """The id of the run to resume; None means the flow's latest run, as it does in `origin`.

    Does not check that the run exists.

    Raises:
        ResumeError: `origin` names no run, or one of another flow.
    """
    if origin is None:
        return None
    shown = reprlib.repr(origin)
    named = getattr(origin, "pathspec", origin)  # a `Run` or the handle that `Engine.start` returns
    if isinstance(named, int) and not isinstance(named, bool):
        named = str(named)
    parts = named.split("/") if isinstance(named, str) else []
    if not all(parts) or len(parts) not in {1, 2}:
        message = (
            f"{shown} does not name a run of {flow.__name__}: give a run's id, its pathspec "
            f"({flow.__name__}/ID) or the run itself; without any, the latest run is resumed"
        )
        raise ResumeError(message)
    if parts[:-1] not in ([], [flow.__name__]):
        message = f"{named} is a run of {parts[0]}, not of {flow.__name__}: give a run of that flow"
        raise ResumeError(message)
    return parts[-1]


def check_store(store: RunStore, origin: object) -> None:
    """Refuse to resume a run of another store. A run given by its id alone is looked up here.

    Raises:
        ResumeError: The run is in another store.
    """
    from asyncflow.client import Run

    run = origin.run if isinstance(origin, RunHandle) else origin
    if not isinstance(run, Run):
        return
    if not store.is_at(str(run.store)):
        message = (
            f"{run.pathspec} is in the store {run.store}, but this engine uses {store.location}: "
            "open an engine with that store"
        )
        raise ResumeError(message)


def check_callback(callback: object) -> None:
    """Refuse a callback that cannot be called, or whose code a call would not run.

    Raises:
        TypeError: The message says what to give instead.
    """
    shown = reprlib.repr(callback)
    if not callable(callback):
        message = f"{shown} cannot be called: give a function that takes an event"
        raise TypeError(message)
    if inspect.isgeneratorfunction(callback) or inspect.isasyncgenfunction(callback):
        message = f"{shown} contains `yield`, so a call would not run it: remove the `yield`"
        raise TypeError(message)
