"""The limits of a store as plain data: what each allows, and how much of it is in use."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from asyncflow.errors import LimitError
from asyncflow.store.limit_files import Bounds, LimitFile, names_in
from asyncflow.values import Status

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from asyncflow.client.objects import Run


def limits_data(folder: Path) -> Iterator[dict[str, Any]]:
    """Every limit of a store: its bounds, and how much of it is in use.

    Raises:
        LimitError: The file of a limit is damaged.
    """
    for name in names_in(folder):
        with LimitFile.open(folder, name) as file:
            yield {"name": name, **bounds_data(file.bounds()), **_use_data(file)}


def limits_of(run: Run) -> Iterator[dict[str, Any]]:
    """The limits on the steps of a running run; a full limit is why its tasks wait."""
    if run.status is not Status.RUNNING:
        return
    folder = run._place.store.limits  # noqa: SLF001 - parts of one package
    for step in run.graph:
        for name, *bounds in step.options.get("limit") or ():
            with suppress(LimitError), LimitFile.open(folder, name, make=False) as file:
                allowed = file.bounds().or_else(Bounds(*bounds))
                yield {
                    "name": name,
                    "step": step.name,
                    **bounds_data(allowed),
                    **_use_data(file),
                }


def bounds_data(bounds: Bounds) -> dict[str, Any]:
    """What a limit allows."""
    return {"at_once": bounds.at_once, "per_second": bounds.per_second}


def _use_data(file: LimitFile) -> dict[str, Any]:
    return {"in_use": file.in_use(), "engines_waiting": file.in_line()}
