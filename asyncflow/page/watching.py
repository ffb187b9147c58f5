"""Sends what happens to browsers as server-sent events: the events of a run, the rows of a list.

However many browsers watch a run, its journal is read once, and a message is made once for all who
wish for the same. There is no task in the background: one of those who wait looks for all, and if
it goes away, the next one does. Messages are kept for a while; for a browser that was away or is
slow, older ones are made again.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakValueDictionary

import anyio

from asyncflow._support.locations import is_url
from asyncflow.errors import AsyncflowError
from asyncflow.page.answers import cut, problem_of, to_bytes
from asyncflow.page.run_news import News, Wish, message, news_of
from asyncflow.page.run_rows import fingerprint, shown
from asyncflow.values import Status

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from asyncflow.client.run_files import RunRecord
    from asyncflow.page.opened_runs import OpenedRuns
    from asyncflow.page.run_rows import RunRows

    Read = Callable[[Callable[[], Any]], Awaitable[Any]]

_PAUSE_SECONDS: Final = 0.02
"""Between two looks at a journal: what happens is told within a tenth of a second, also after a
long silence. A look costs a hundred microseconds."""
_BUSY_SECONDS: Final = 0.06
"""The same after a look that has found something: what comes meanwhile is told in one message."""
_FAST_SECONDS: Final = 0.08
"""The same after one that has found many events."""
_MANY_EVENTS: Final = 200
_MADE_AT_ONCE: Final = 4  # kinds of messages that a look makes: few pages show another one
_REMOTE_PAUSE_SECONDS: Final = 1.0  # each look at an object store is a request
_ALIVE_SECONDS: Final = 0.5  # between two looks whether the engine is there, while nothing happens
_COMMENT_SECONDS: Final = 15.0
_KEPT_BYTES: Final = 2 << 20
_KEPT_MESSAGES: Final = 1000
_LIST_PAUSE_SECONDS: Final = 0.25
_LIST_SHARE: Final = 20  # looking at the list takes at most a twentieth of a processor
_LIST_MOST_SECONDS: Final = 5.0
_MOST_CHANGES: Final = 100  # rows in one message
_FIRST_ROWS: Final = 50
_FIRST_RUNS: Final = 20  # of each flow, when nobody has looked before
_KEPT_LISTS: Final = 200

MOST_WATCHERS: Final = 500

COMMENT: Final = b": alive\n\n"
HELLO: Final = b"retry: 500\n\n"
"""The first message: the browser knows that it is connected, and how soon to connect again."""


@dataclass(slots=True)
class _Waiters:
    """Those who wait for news, of whom one looks for it."""

    is_looked_for: bool
    news: anyio.Event

    async def look(self, look: Callable[[], Awaitable[bool]]) -> None:
        """Return when there is news, or when somebody else has to look."""
        if self.is_looked_for:
            # Without a time limit, which would cost as much as the rest: who looks has one.
            await self.news.wait()
            return
        self.is_looked_for = True
        until = time.monotonic() + _COMMENT_SECONDS
        try:
            while not await look() and time.monotonic() < until:
                pass
        finally:
            self.is_looked_for = False
            told, self.news = self.news, anyio.Event()
            told.set()


# --- the events of a run ------------------------------------------------------------------------


_Key = tuple[int, Wish]
"""How far somebody has come, and what is wished for."""


class RunWatch:
    """How far one run has come, for all who watch it, and the latest messages about it."""

    def __init__(self, record: RunRecord, read: Read, *, remote: bool) -> None:
        """Read nothing yet; `read` calls a function in a thread."""
        self._record, self._read = record, read
        self._quiet = _REMOTE_PAUSE_SECONDS if remote else _PAUSE_SECONDS
        self._busy = max(self._quiet, _BUSY_SECONDS)
        self._fast = max(self._quiet, _FAST_SECONDS)
        self._waiters = _Waiters(is_looked_for=False, news=anyio.Event())
        self._last = -1
        """The number of the last event that was read."""
        self._next = self._alive_at = 0.0
        self._told: OrderedDict[_Key, News] = OrderedDict()
        self._bytes = 0
        self._telling = anyio.Lock()
        self._waiting: dict[_Key, int | None] = {}
        """What is waited for, as `_tell` is asked for it."""
        self.end: dict[str, Any] | None = None

    async def follow(self, since: int, wish: Wish) -> AsyncIterator[bytes]:
        """The events after `since`, as messages; each once, until the run has ended."""
        yield HELLO
        sent, offset = time.monotonic(), None
        while True:
            if since < self._last:
                since, offset, told = await self._tell(since, offset, wish)
                yield told
                sent = time.monotonic()
            elif self.end is not None:
                yield message(to_bytes(self.end), event="end")
                return
            elif time.monotonic() - sent >= _COMMENT_SECONDS:
                yield COMMENT
                sent = time.monotonic()
            else:
                if len(self._waiting) < MOST_WATCHERS:
                    self._waiting[since, wish] = offset
                await self._waiters.look(self._look)

    async def _tell(self, since: int, offset: int | None, wish: Wish) -> News:
        """The next message for who has come to `since`: made once for all who wish for it."""
        key = since, wish
        if (found := self._told.get(key)) is not None:
            return found
        async with self._telling:
            if (found := self._told.get(key)) is not None:
                return found
            until = self._last
            try:
                made: News = await self._read(
                    lambda: news_of(self._record, since, until, offset, wish)
                )
            except (AsyncflowError, OSError) as error:
                # It was read once already: somebody has changed the file.
                self.end = _unreadable(error)
                self._last = since
                return News(since, offset, COMMENT)
            self._keep(key, made)
            return made

    def _keep(self, key: _Key, made: News) -> None:
        if key in self._told:
            return
        self._told[key] = made
        self._bytes += len(made.message)
        while self._bytes > _KEPT_BYTES or len(self._told) > _KEPT_MESSAGES:
            _, old = self._told.popitem(last=False)
            self._bytes -= len(old.message)

    # --- what the one who looks does for all ---

    async def _look(self) -> bool:
        """Look once; return whether there is news. What is read counts when it is taken in."""
        await anyio.sleep(max(self._next - time.monotonic(), 0))
        waiting = list(self._waiting.items())[:_MADE_AT_ONCE]
        last, end, made = await self._read(lambda: self._read_on_and_tell(waiting))
        is_news = last > self._last or end is not None
        busy = self._fast if last - self._last >= _MANY_EVENTS else self._busy
        self._next = time.monotonic() + (busy if is_news else self._quiet)
        self._last, self.end = max(last, self._last), end
        if is_news:
            self._waiting.clear()
        for key, news in made.items():
            self._keep(key, news)
        return is_news

    def _read_on_and_tell(
        self, waiting: Sequence[tuple[_Key, int | None]]
    ) -> tuple[int, dict[str, Any] | None, dict[_Key, News]]:
        """What `_read_on` says, and the messages that are waited for.

        So all who wait are woken once, and find what they wait for.
        """
        last, end = self._read_on()
        made: dict[_Key, News] = {}
        if last > self._last:
            for (since, wish), offset in waiting:
                if since >= last:  # a browser that has read more than this watch so far
                    continue
                with suppress(AsyncflowError, OSError):  # `_tell` says so
                    made[since, wish] = news_of(self._record, since, last, offset, wish)
        return last, end, made

    def _read_on(self) -> tuple[int, dict[str, Any] | None]:
        """The number of the last event, and how the run has ended, if it has."""
        try:
            summary = self._record.summary()
            if summary.events == self._last and summary.status is Status.RUNNING:
                return self._last, self._gone()
        except (AsyncflowError, OSError) as error:
            return self._record.tasks.read_so_far()[0], _unreadable(error)
        ended = summary.status is not Status.RUNNING
        return summary.events, {"status": str(summary.status)} if ended else None

    def _gone(self) -> dict[str, Any] | None:
        """The end of a run to which nothing is added any more; None if something may be."""
        now = time.monotonic()
        if now - self._alive_at < _ALIVE_SECONDS:
            return None
        self._alive_at = now
        status = self._record.status()
        if status is Status.RUNNING or self._record.summary().events != self._last:
            return None
        return {"status": str(status)}


def _unreadable(error: Exception) -> dict[str, Any]:
    text, do = problem_of(error)
    return {"status": "unreadable", "message": cut(text, 1000), "do": do}


# --- the list of runs ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Change:
    number: int
    rows: Sequence[dict[str, Any]]
    removed: Sequence[str]


@dataclass(slots=True)
class _Seen:
    """What a look has found in the store."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    """Of the runs that are new or have changed since the look before."""
    removed: list[str] = field(default_factory=list)
    known: dict[str, set[str]] = field(default_factory=dict)
    """The ids of all runs, by flow."""
    going_on: dict[tuple[str, str], int] = field(default_factory=dict)
    """The runs that may change, each with the fingerprint of its row."""
    seconds: float = 0.0
    """The processor time that the look took."""


class ListWatch:
    """What changes in the list of runs, for all who watch it."""

    def __init__(self, opened: OpenedRuns, rows: RunRows, read: Read) -> None:
        """Read nothing yet."""
        self._opened, self._rows, self._read = opened, rows, read
        self._pause = _LIST_PAUSE_SECONDS
        self._waiters = _Waiters(is_looked_for=False, news=anyio.Event())
        self._changes: deque[_Change] = deque(maxlen=_KEPT_LISTS)
        # So that a browser that comes back to another server begins anew.
        self._number = time.time_ns() // 1_000_000
        self._seen = _Seen()
        self._is_new = True

    async def follow(self, since: int, flow: str | None) -> AsyncIterator[bytes]:
        """The rows that are new or have changed, as messages; it has no end."""
        yield HELLO
        sent = time.monotonic()
        if self._is_new:
            await self._look()
        while True:
            if not self._number - len(self._changes) <= since <= self._number:
                # It is new, or has been away, or asleep, for longer than changes are kept.
                since = self._number  # what is told meanwhile may not be among these rows
                rows = await self._read(lambda: self._first(flow))
                yield _list_message(since, rows, [])
                sent = time.monotonic()
                continue
            changes = [change for change in self._changes if change.number > since]
            for change in changes:
                since = change.number
                rows = [row for row in change.rows if flow in {None, row["flow"]}]
                gone = [each for each in change.removed if flow in {None, each.partition("/")[0]}]
                if rows or gone:
                    yield _list_message(since, rows, gone)
                    sent = time.monotonic()
            if not changes:
                if time.monotonic() - sent >= _COMMENT_SECONDS:
                    yield COMMENT
                    sent = time.monotonic()
                await self._waiters.look(self._look)

    def _first(self, flow: str | None) -> list[dict[str, Any]]:
        """The rows of the newest runs, and of those that go on."""
        from asyncflow.page.run_rows import Choice

        found = self._rows.listed(Choice(flow=flow, limit=_FIRST_ROWS))["runs"]
        have = {row["pathspec"] for row in found}
        for name, run_id in list(self._seen.going_on)[:_MOST_CHANGES]:
            if flow in {None, name} and f"{name}/{run_id}" not in have:
                row = self._rows.row(name, run_id)
                found += [] if row is None else [shown(row)]
        return list(found)

    async def _look(self) -> bool:
        if not self._is_new:
            await anyio.sleep(self._pause)
        seen = self._seen = await self._read(self._changed)
        self._pause = min(max(_LIST_PAUSE_SECONDS, _LIST_SHARE * seen.seconds), _LIST_MOST_SECONDS)
        if self._is_new:
            self._is_new = False
            return False
        for at in range(0, max(len(seen.rows), len(seen.removed)), _MOST_CHANGES):
            here = slice(at, at + _MOST_CHANGES)
            self._number += 1
            self._changes.append(_Change(self._number, seen.rows[here], seen.removed[here]))
        return bool(seen.rows or seen.removed)

    def _changed(self) -> _Seen:
        """What there is, and how it differs from what was seen before.

        Nothing is noted here: whoever looks may go away before it is told.
        """
        began = time.thread_time()
        before, seen = self._seen, _Seen()
        for flow in self._opened.store.list_flows().names:
            try:
                seen.known[flow] = set(self._opened.store.runs(flow))
            except AsyncflowError:
                seen.known[flow] = before.known.get(flow, set())
        marks = dict(before.going_on)
        for flow in seen.known.keys() | before.known.keys():
            old, new = before.known.get(flow), seen.known.get(flow, set())
            seen.removed += [f"{flow}/{run_id}" for run_id in (old or set()) - new]
            fresh = new - old if old is not None else sorted(new, key=int)[-_FIRST_RUNS:]
            marks |= {(flow, run_id): 0 for run_id in fresh}
        for (flow, run_id), mark in marks.items():
            if run_id in seen.known.get(flow, ()):
                self._look_at(flow, run_id, mark, seen)
        seen.seconds = time.thread_time() - began
        return seen

    def _look_at(self, flow: str, run_id: str, mark: int, seen: _Seen) -> None:
        """Add a run's row if it is another than `mark` says; note if it may change again."""
        row = self._rows.row(flow, run_id)
        if row is not None:
            before, mark = mark, fingerprint(shown(row))
            if mark != before:
                seen.rows.append(shown(row))
        if row is None or row["status"] == Status.RUNNING or row.get("_may_be_readable"):
            seen.going_on[flow, run_id] = mark


def _list_message(number: int, rows: Sequence[dict[str, Any]], removed: Sequence[str]) -> bytes:
    return message(to_bytes({"runs": rows, "removed": removed}), number=number)


# --- all of them --------------------------------------------------------------------------------


class Watches:
    """Finds what somebody else watches already."""

    def __init__(self, opened: OpenedRuns, rows: RunRows, read: Read) -> None:
        """Read nothing yet."""
        self._opened, self._read = opened, read
        self._runs: WeakValueDictionary[tuple[str, str], RunWatch] = WeakValueDictionary()
        self._list: ListWatch | None = None
        self._rows = rows
        self._watching = 0

    def are_many(self) -> bool:
        """Whether nobody else can watch: each holds one of the connections of the process."""
        return self._watching >= MOST_WATCHERS

    async def counted(self, messages: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The same messages, of somebody who counts as long as they come."""
        self._watching += 1
        try:
            async for each in messages:
                yield each
        finally:
            self._watching -= 1

    def run(self, record: RunRecord) -> RunWatch:
        """The events of a run."""
        key = record.place.flow, record.run_id
        watch = self._runs.get(key)
        if watch is None or watch.end is not None:
            remote = is_url(self._opened.location)
            watch = self._runs[key] = RunWatch(record, self._read, remote=remote)
        return watch

    def list(self) -> ListWatch:
        """The list of runs."""
        if self._list is None:
            self._list = ListWatch(self._opened, self._rows, self._read)
        return self._list
