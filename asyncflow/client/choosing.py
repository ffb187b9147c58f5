"""Chooses runs and tasks by tags, status, time and parameters, without reading any value."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from asyncflow.client.namespaces import get_namespace
from asyncflow.events.types import to_microseconds
from asyncflow.flow.parameter_values import shown_value
from asyncflow.values import Status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from asyncflow.client.run_files import RunRecord


def statuses_in(given: str | Iterable[str] | None) -> frozenset[Status] | None:
    """One status or several, as a set; None for any.

    Raises:
        ValueError: There is no such status.
    """
    if given is None:
        return None
    names = [given] if isinstance(given, str) else list(given)
    try:
        return frozenset(map(Status, names))
    except ValueError as error:
        message = f"{error}; a status is {', '.join(Status)}"
        raise ValueError(message) from None


def chooser(
    tags: Iterable[str],
    *,
    status: str | Iterable[str] | None,
    since: datetime | timedelta | None,
    before: datetime | timedelta | None,
    parameters: Mapping[str, object] | None,
) -> Callable[[RunRecord], bool]:
    """A function that tells whether a run in the namespace is wanted; see `Flow.runs`.

    Raises:
        ValueError: There is no such status.
    """
    statuses = statuses_in(status)
    namespace = get_namespace()
    wanted = {*tags} if namespace is None else {*tags, namespace}
    first, end = _microseconds(since), _microseconds(before)

    def is_chosen(run: RunRecord) -> bool:
        if not run.has_tags(wanted):
            return False
        if first is not None and run.summary().started < first:
            return False
        if end is not None and run.summary().started >= end:
            return False
        if statuses is not None and run.status() not in statuses:
            return False
        return all(_has(run, name, value) for name, value in (parameters or {}).items())

    return is_chosen


def _microseconds(time: datetime | timedelta | None) -> int | None:
    if time is None:
        return None
    if isinstance(time, timedelta):
        time = datetime.now(UTC) - time
    return to_microseconds(time.astimezone(UTC))


def _has(run: RunRecord, name: str, value: object) -> bool:
    """Whether a run's parameter has this value; a parameter `2.0` has the value 2."""
    text = run.started.parameters.get(name)
    if text is None:
        return False
    if text == str(value):
        return True
    if text == shown_value(value):  # it is too long to be kept as text
        ref = run.parameters()[name]
        return bool(run.place.artifacts.load(ref, f"{run.pathspec}/{name}").value == value)
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    try:
        return float(text) == value
    except ValueError:
        return False
