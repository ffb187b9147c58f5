"""The limits of a store as plain data: what each allows, and how much of it is in use."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from asyncflow.errors import LimitError
from asyncflow.store.limit_files import Bounds
from asyncflow.values import Status

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asyncflow.client.objects import Run
    from asyncflow.store.limit_files import LimitUse
    from asyncflow.store.limit_interface import LimitStore


def limits_data(limits: LimitStore) -> Iterator[dict[str, Any]]:
    """Every limit of a store: its bounds, and how much of it is in use.

    Raises:
        LimitError: A limit is damaged, or cannot be read. Those that can be came before.
    """
    first: LimitError | None = None
    for name in limits.names():
        try:
            use = limits.look(name)
        except LimitError as error:
            first = first or error
            continue
        yield {"name": name, **bounds_data(use.bounds), **_use_data(use)}
    if first is not None:
        raise first


def limits_of(run: Run) -> Iterator[dict[str, Any]]:
    """The limits on the steps of a running run; a full limit is why its tasks wait."""
    if run.status is not Status.RUNNING:
        return
    limits = run._place.store.named_limits  # noqa: SLF001 - only the client's own modules may ask a run for its store
    for step in run.graph:
        for name, *bounds in step.options.get("limit") or ():
            with suppress(LimitError):
                use = limits.look(name)
                allowed = use.bounds.or_else(Bounds(*bounds))
                yield {
                    "name": name,
                    "step": step.name,
                    **bounds_data(allowed),
                    **_use_data(use),
                }


def bounds_data(bounds: Bounds) -> dict[str, Any]:
    """What a limit allows."""
    return {"at_once": bounds.at_once, "per_second": bounds.per_second}


def _use_data(use: LimitUse) -> dict[str, Any]:
    return {"in_use": use.in_use, "engines_waiting": use.engines_waiting}
