"""The list of runs: a row for each, newest first, and the choice among them.

A row of a run that has ended never changes but for its tags, so it is kept. Of a run that is not
shown, no more is read than is needed to tell that.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from asyncflow.client.json_data import iso
from asyncflow.client.run_files import RunRecord
from asyncflow.client.step_rows import run_progress
from asyncflow.errors import AsyncflowError, StoreError
from asyncflow.events.types import from_microseconds
from asyncflow.page.answers import ROOM_BYTES, cut, fitting, problem_of
from asyncflow.store.run_tags import changed_tags
from asyncflow.values import Status

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from asyncflow.page.opened_runs import OpenedRuns

UNREADABLE: Final = "unreadable"
"""The status of a run that cannot be read."""
_MOST_KEPT: Final = 20_000  # rows: some kilobytes for each
_MOST_ENDED: Final = 200_000
_MOST_TAGS: Final = 20
_TEXT: Final = 200  # characters
_MOST_UNREADABLE: Final = 20
_SEARCH_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class Choice:
    """Which runs are asked for."""

    flow: str | None = None
    status: Sequence[str] = ()
    tags: Sequence[str] = ()
    since: int | None = None
    """In microseconds since 1970, as `before`."""
    before: int | None = None
    text: str = ""
    limit: int = 100
    after: int | None = None
    """Only runs with a lower id."""


@dataclass(slots=True)
class _Kept:
    """What is known of runs that have ended."""

    rows: OrderedDict[tuple[str, str], dict[str, Any]] = field(default_factory=OrderedDict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def get(self, key: tuple[str, str]) -> dict[str, Any] | None:
        with self.lock:
            return self.rows.get(key)

    def put(self, key: tuple[str, str], row: dict[str, Any]) -> None:
        with self.lock:
            self.rows[key] = row
            while len(self.rows) > _MOST_KEPT:
                self.rows.popitem(last=False)


class RunRows:
    """Makes the rows of a store's runs."""

    def __init__(self, opened: OpenedRuns) -> None:
        """Read nothing yet."""
        self._opened = opened
        self._kept = _Kept()
        self._ended: dict[tuple[str, str], tuple[str, int]] = {}
        """The status and the start of runs that have ended: some hundred bytes for each."""

    # --- the list ---

    def listed(self, choice: Choice) -> dict[str, Any]:
        """The chosen runs, newest first, and the flows of the store.

        Raises:
            NotFoundError: There is no such flow.
            StoreError: The store cannot be read.
        """
        store = self._opened.store
        listing = store.list_flows()
        unreadable = [str(stray) for stray in listing.strays]
        ids: dict[str, list[str]] = {}
        for flow in listing.names:
            try:
                ids[flow] = list(store.runs(flow))
            except StoreError as error:
                unreadable.append(str(error))
        if choice.flow is not None:
            self._opened.place(choice.flow)
        wanted = ids if choice.flow is None else {choice.flow: ids.get(choice.flow, [])}
        until = time.monotonic() + _SEARCH_SECONDS
        rows, last = self._chosen(wanted, choice, until)
        flows, whole = fitting(
            ({"flow": flow, "runs": len(found)} for flow, found in ids.items()), ROOM_BYTES // 3
        )
        taken, fits = fitting(rows, ROOM_BYTES - ROOM_BYTES // 3)
        if not fits:
            last = taken[-1]["run_id"] if taken else None
        return {
            "runs": taken,
            "next": last,
            "flows": flows,
            "flows_cut": not whole,
            "unreadable": [cut(why, 500) for why in unreadable[:_MOST_UNREADABLE]],
        }

    def _chosen(
        self, ids: dict[str, list[str]], choice: Choice, until: float
    ) -> tuple[list[dict[str, Any]], str | None]:
        """The rows, and where the next ones begin; None if there are no more."""
        merged = heapq.merge(
            *(_numbered(flow, found) for flow, found in ids.items()),
            reverse=True,
        )
        rows: list[dict[str, Any]] = []
        for number, flow in merged:
            if choice.after is not None and number >= choice.after:
                continue
            if choice.since is not None and number < choice.since:  # and so are all that follow
                break
            if len(rows) == choice.limit or time.monotonic() > until:
                # the last one that was looked at has gone before
                return rows, str(number + 1)
            row = self._row_if_chosen(flow, str(number), choice)
            if row is not None:
                rows.append(row)
        return rows, None

    def _row_if_chosen(self, flow: str, run_id: str, choice: Choice) -> dict[str, Any] | None:
        if (choice.status or choice.since or choice.before) and not self._may_fit(
            flow, run_id, choice
        ):
            return None
        row = self.row(flow, run_id)
        if row is None or not _fits(row["status"], row["_started"], choice):
            return None
        if not all(tag in row["_all_tags"] for tag in choice.tags):
            return None
        if choice.text and choice.text.casefold() not in row["_text"]:
            return None
        return shown(row)

    def _may_fit(self, flow: str, run_id: str, choice: Choice) -> bool:
        """Whether a run may have the right status and time.

        Of one that has ended, the summary says it; no more is read, and that once.
        """
        key = flow, run_id
        ended = self._ended.get(key)
        if ended is None:
            summary = RunRecord(self._opened.place(flow), run_id).written_summary()
            if summary is None:
                return True
            if len(self._ended) > _MOST_ENDED:
                self._ended.clear()
            ended = self._ended[key] = str(summary.status), summary.started
        return _fits(*ended, choice)

    # --- one row ---

    def row(self, flow: str, run_id: str) -> dict[str, Any] | None:
        """The row of a run; None if it has not begun. Names with `_` are for the search."""
        key = flow, run_id
        kept = self._kept.get(key)
        record = RunRecord(self._opened.place(flow), run_id)
        try:
            if kept is None and not record.exists():
                return None
            if kept is None:
                row = self._made(flow, run_id)
                if row["status"] not in {Status.RUNNING, Status.INTERRUPTED}:
                    self._kept.put(key, row)
            else:
                row = kept
            return {**row, **self._changing(record, row)}
        except (AsyncflowError, OSError) as error:
            return unreadable_row(flow, run_id, error)

    def _made(self, flow: str, run_id: str) -> dict[str, Any]:
        record = self._opened.record(flow, run_id)
        return row_data(record)

    def _changing(self, record: RunRecord, row: dict[str, Any]) -> dict[str, Any]:
        """What may change of a run that has ended."""
        changed = changed_tags(record.stored)
        tags = sorted(row["_tags"] if changed is None else changed)
        texts = [row["pathspec"], row["user"], *tags, *row["_parameters"]]
        return {
            "tags": [cut(tag, _TEXT) for tag in tags[:_MOST_TAGS]],
            "resumed_as": self._resumed_as(record, row["status"]),
            "_all_tags": {*tags, *row["_system_tags"]},
            "_text": "\n".join(texts).casefold(),
        }

    def _resumed_as(self, record: RunRecord, status: str) -> list[str]:
        if status == Status.SUCCEEDED:
            return []
        return self._opened.resumed.of(record.place, record.run_id)[-5:]


def _numbered(flow: str, ids: Sequence[str]) -> Iterator[tuple[int, str]]:
    """The runs of a flow as numbers, newest first; made when they are looked at."""
    return ((int(run_id), flow) for run_id in ids)


def _fits(status: str, started: int, choice: Choice) -> bool:
    if choice.status and status not in choice.status:
        return False
    late = choice.before is not None and started >= choice.before
    return not late and (choice.since is None or started >= choice.since)


def row_data(record: RunRecord) -> dict[str, Any]:
    """The row of a run, without its tags.

    Raises:
        JournalError: It is damaged.
    """
    summary, status, started = record.summary(), record.status(), record.started
    finished = from_microseconds(summary.finished) if summary.status.finished else None
    return {
        "pathspec": record.pathspec,
        "flow": record.place.flow,
        "run_id": record.run_id,
        "status": str(status),
        "created_at": iso(from_microseconds(summary.started)),
        "finished_at": iso(finished),
        "seconds": max(summary.finished - summary.started, 0) / 1e6 if finished else None,
        "so_far": _age(summary.started) if status is Status.RUNNING else None,
        "user": cut(started.user, _TEXT),
        "origin_run_id": started.origin_run_id,
        **run_progress(record),
        "_started": summary.started,
        "_tags": summary.tags,
        "_system_tags": record.system_tags(),
        "_parameters": [
            f"{name}={cut(text, 1000)}" for name, text in islice(started.parameters.items(), 100)
        ],
    }


def _age(started: int) -> float:
    return max(datetime.now(UTC).timestamp() - started / 1e6, 0.0)


def unreadable_row(flow: str, run_id: str, error: Exception) -> dict[str, Any]:
    """The row of a run that cannot be read."""
    message, do = problem_of(error)
    started = int(run_id) if run_id.isdecimal() and len(run_id) < 18 else 0  # noqa: PLR2004 - a time
    return {
        "pathspec": f"{flow}/{run_id}",
        "flow": flow,
        "run_id": run_id,
        "status": UNREADABLE,
        "created_at": iso(from_microseconds(started)),
        "finished_at": None,
        "seconds": None,
        "so_far": None,
        "user": "",
        "origin_run_id": None,
        "current_steps": [],
        "done": None,
        "total": None,
        "running": None,
        "failed": None,
        "tags": [],
        "resumed_as": [],
        "message": cut(message, 1000),
        "do": do,
        "_may_be_readable": _is_of_system(error),
        "_started": started,
        "_all_tags": set[str](),
        "_text": f"{flow}/{run_id}".casefold(),
    }


def _is_of_system(error: BaseException | None) -> bool:
    """Whether a disk or an object store has failed, which may pass; damage stays."""
    while error is not None and not isinstance(error, OSError):
        error = error.__context__
    return error is not None


def shown(row: dict[str, Any]) -> dict[str, Any]:
    """A row without what is only for the search."""
    return {name: value for name, value in row.items() if not name.startswith("_")}


def fingerprint(row: dict[str, Any]) -> int:
    """Changes if the row does, but for the time that has passed."""
    return hash(repr({name: row[name] for name in row if name != "so_far"}))
