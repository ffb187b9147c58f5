"""The runs of one flow or of all flows of a store, newest first; damage does not end the list."""

from __future__ import annotations

import heapq
from itertools import islice
from typing import TYPE_CHECKING

from asyncflow._support.settings import Settings
from asyncflow.client.objects import Flow, Run
from asyncflow.errors import JournalError, StoreError
from asyncflow.store import open_store
from asyncflow.values import Status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from asyncflow.store.interface import RunStore


def newest_runs(
    flow: str | None,
    store: Path | str | None,
    tags: Sequence[str],
    limit: int,
    on_unreadable: Callable[[str], object] = lambda _: None,
    *,
    status: Sequence[str] = (),
) -> Iterator[Run]:
    """The runs of a flow, or of all, newest first; `limit` 0 for all.

    They have all of the tags, and one of the statuses, if any is given.
    A flow or run that cannot be read is skipped, and `on_unreadable` is called with the reason.

    Raises:
        NotFoundError: There is no such flow.
        StoreError: There is no store, or it cannot be read.
    """
    root = Settings.read(store=store).store
    opened = open_store(root)
    names = _readable(opened, on_unreadable) if flow is None else [flow]
    flows = [Flow(name, store=root) for name in names]
    each = [_runs_of(flow, tags, status, on_unreadable) for flow in flows]
    for name in names:
        for stray in opened.list_runs(name).strays:
            on_unreadable(str(stray))
    merged = heapq.merge(*each, key=lambda run: int(run.id), reverse=True)
    return islice(merged, limit or None)


def _readable(store: RunStore, on_unreadable: Callable[[str], object]) -> list[str]:
    flows = store.list_flows()
    for stray in flows.strays:
        on_unreadable(str(stray))
    found = []
    for flow in flows.names:
        try:
            store.runs(flow)
        except StoreError as error:
            on_unreadable(str(error))
        else:
            found.append(flow)
    return found


def _runs_of(
    flow: Flow,
    tags: Sequence[str],
    status: Sequence[str],
    on_unreadable: Callable[[str], object],
) -> Iterator[Run]:
    for run in flow:
        try:
            has_tags = run._record.has_tags(tags)  # noqa: SLF001 - one family
            fits = run.status in (status or Status)
        except JournalError as error:
            on_unreadable(str(error))
        else:
            if has_tags and fits:
                yield run
