"""Short names of runs, as people type them: `latest`, an id alone, the beginning of an id."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final

from asyncflow.errors import NotFoundError

if TYPE_CHECKING:
    from asyncflow.store.interface import RunStore

LATEST: Final = "latest"
"""Names the newest run, of a flow or of all flows."""
_NAMED: Final = 8  # runs that an error names
_LEAST_DIGITS: Final = 4
"""The shortest beginning of an id: a single digit that was left over should name no run."""
_WHOLE_DIGITS: Final = 16
"""An id of that many digits is most likely whole, and is looked for before the ids are listed."""


def may_be_run(name: str) -> bool:
    """Whether a name says which run, without its flow."""
    return name == LATEST or name.isdecimal()


def whole_name(store: RunStore, pathspec: str) -> str:
    """A pathspec whose run may have a short name, with its flow and its whole id.

    `latest`, an id and a unique beginning of one, of at least 4 digits, may stand after the flow or
    in place of it: `latest`, `Flow/latest/train`, `17957431`. What names a flow means that flow.

    Raises:
        NotFoundError: It names no run, or more than one; the error lists them.
        StoreError: The store cannot be read.
    """
    first, *rest = pathspec.split("/")
    if may_be_run(first) and not store.has_flow(first):
        return "/".join([_run_of_any(store, first), *rest])
    if not rest or not may_be_run(rest[0]) or not store.has_flow(first):
        return pathspec
    found = _matching(store, first, rest[0])
    if not found:
        raise NotFoundError(store.has_no_run(first, rest[0]))
    _check_one(rest[0], [f"{first}/{run_id}" for run_id in found])
    return "/".join([first, found[0], *rest[1:]])


def _run_of_any(store: RunStore, name: str) -> str:
    found = [
        (int(run_id), f"{flow}/{run_id}")
        for flow in store.flows()
        for run_id in _matching(store, flow, name)
    ]
    found.sort(reverse=True)
    if not found:
        message = f"there is no run {name!r} of any flow in the store {store.location}"
        raise NotFoundError(message)
    if name == LATEST:
        return found[0][1]
    _check_one(name, [pathspec for _, pathspec in found])
    return found[0][1]


def _matching(store: RunStore, flow: str, name: str) -> list[str]:
    """The ids of a flow's runs that a name means, newest first."""
    if name == LATEST:
        return list(islice(store.newest_runs(flow), 1))
    if len(name) >= _WHOLE_DIGITS and store.run(flow, name).has_journal():
        return [name]
    ids = store.runs(flow)
    if name in ids:
        return [name]
    return [run_id for run_id in ids if run_id.startswith(name) and len(name) >= _LEAST_DIGITS]


def _check_one(name: str, found: list[str]) -> None:
    if len(found) > 1:
        more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
        message = f"{name!r} begins {len(found)} runs: {', '.join(found[:_NAMED])}{more}"
        raise NotFoundError(message)
