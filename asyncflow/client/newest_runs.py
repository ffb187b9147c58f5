"""The runs of one flow or of all flows of a store, newest first; damage does not end the list."""

from __future__ import annotations

import heapq
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from asyncflow._support.settings import Settings
from asyncflow.client.objects import Flow, Run
from asyncflow.errors import JournalError, StoreError
from asyncflow.events.types import to_microseconds
from asyncflow.store import open_store
from asyncflow.values import Status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime
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
    since: datetime | None = None,
    before: datetime | None = None,
) -> Iterator[Run]:
    """The runs of a flow, or of all, newest first; `limit` 0 for all.

    They have all of the tags, one of the statuses, if any is given, and were started at `since` or
    later, and earlier than `before`.
    A flow or run that cannot be read is skipped, and `on_unreadable` is called with the reason.

    Raises:
        NotFoundError: There is no such flow.
        StoreError: There is no store, or it cannot be read.
    """
    root = Settings.read(store=store).store
    opened = open_store(root)
    names = _readable(opened, on_unreadable) if flow is None else [flow]
    flows = [Flow(name, store=root) for name in names]
    chosen = partial(
        _runs_of,
        tags=tags,
        status=status,
        on_unreadable=on_unreadable,
        since=None if since is None else to_microseconds(since),
        before=None if before is None else to_microseconds(before),
    )
    each = [chosen(flow) for flow in flows]
    if flow is not None:
        _tell_strays(opened, flow, on_unreadable)
    merged = heapq.merge(*each, key=lambda run: int(run.id), reverse=True)
    return islice(merged, limit or None)


def _readable(store: RunStore, on_unreadable: Callable[[str], object]) -> list[str]:
    flows = store.list_flows()
    for stray in flows.strays:
        on_unreadable(str(stray))
    found = []
    for flow in flows.names:
        try:
            _tell_strays(store, flow, on_unreadable)
        except StoreError as error:
            on_unreadable(str(error))
        else:
            found.append(flow)
    return found


def _tell_strays(store: RunStore, flow: str, on_unreadable: Callable[[str], object]) -> None:
    for stray in store.list_runs(flow).strays:
        on_unreadable(str(stray))


def _runs_of(
    flow: Flow,
    *,
    tags: Sequence[str],
    status: Sequence[str],
    on_unreadable: Callable[[str], object],
    since: int | None,
    before: int | None,
) -> Iterator[Run]:
    for run in flow:
        if since is not None and int(run.id) < since:  # and so are all that follow
            return
        try:
            if not _started_between(run, since, before):
                continue
            has_tags = run._record.has_tags(tags)  # noqa: SLF001 - parts of one package
            fits = run.status in (status or Status)
        except JournalError as error:
            on_unreadable(str(error))
        else:
            if has_tags and fits:
                yield run


def _started_between(run: Run, since: int | None, before: int | None) -> bool:
    """Whether a run was started then; an id is never earlier than that."""
    if since is None and before is None:
        return True
    started = run._record.summary().started  # noqa: SLF001 - parts of one package
    return (since is None or started >= since) and (before is None or started < before)
