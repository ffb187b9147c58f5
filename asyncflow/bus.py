"""Publish and subscribe within one process: news of what is already in a journal.

A `Channel` is one run's news; it knows how far its journal has been published. A `Subscription`
reads any number of channels, each from a given place in its journal: up to where the channel was
when it subscribed from the file, then live, as the very objects that were published. Its buffer is
bounded: past it, what waits is dropped, and the subscription reads on from the journal, so that a
slow reader neither holds up the run nor loses an event nor grows.

The bus never writes and never calls anybody: it wakes whoever waits.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Self

import anyio.to_thread

from asyncflow.events import unpack_events
from asyncflow.store.journal import HEADER, JournalReader

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path

    from asyncflow.events import Event

_REPLAY_RECORDS: Final = 1000  # at once from the journal: some milliseconds of a thread


class Channel:
    """The news of one run."""

    def __init__(self, journal: Path, flow: str, run_id: str) -> None:
        self.journal, self.flow, self.run_id = journal, flow, run_id
        self.published = len(HEADER)
        """Up to which offset the journal's events have been published."""
        self.closed = False
        """Whether the run's last event has been published."""
        self._cursors: set[_Cursor] = set()

    @property
    def watched(self) -> bool:
        """Whether anybody would see what is published now."""
        return bool(self._cursors)

    def publish(self, events: Sequence[Event], upto: int) -> None:
        """Tell what the journal has up to `upto` beyond what was told before."""
        self.published = upto
        for cursor in self._cursors:
            cursor.offer(events, upto)

    def close(self) -> None:
        """Nothing more will come."""
        self.closed = True
        for cursor in self._cursors:
            cursor.wake()

    def __repr__(self) -> str:
        state = "closed" if self.closed else "open"
        return f"<Channel {self.flow}/{self.run_id} {state}, {len(self._cursors)} subscribers>"


class _Cursor:
    """One subscription's place in one channel."""

    def __init__(self, channel: Channel, start: int, limit: int, waker: _Waker) -> None:
        self.channel = channel
        self._limit = limit
        self._waker = waker
        self._next = start  # everything before this offset has been handed out
        self._live: deque[tuple[Sequence[Event], int]] = deque()
        self._live_from = channel.published  # what waits in `_live` begins here in the journal
        self._waiting = 0
        self._reader: JournalReader | None = None
        channel._cursors.add(self)  # noqa: SLF001 - a channel and its cursors are one thing

    def offer(self, events: Sequence[Event], upto: int) -> None:
        """Keep published events while there is room; else forget them all, for now."""
        self._live.append((events, upto))
        self._waiting += len(events)
        if self._waiting > self._limit:
            self._live.clear()
            self._waiting = 0
            self._live_from = upto
        self.wake()

    def wake(self) -> None:
        self._waker.set()

    @property
    def behind(self) -> bool:
        """Whether there is something to hand out."""
        return self._next < self.channel.published

    @property
    def exhausted(self) -> bool:
        """Whether everything has been handed out and nothing more will come."""
        return self.channel.closed and not self.behind

    async def take(self) -> Sequence[Event]:
        """The next events; empty when there are none now."""
        if self._next >= self._live_from:
            return self._take_live()
        return await anyio.to_thread.run_sync(self._replay)

    def _take_live(self) -> Sequence[Event]:
        if not self._live:
            return ()
        events, self._next = self._live.popleft()
        self._waiting -= len(events)
        self._live_from = self._next
        return events

    def _replay(self) -> Sequence[Event]:
        """Read on from the journal; in a thread."""
        if self._reader is None:
            self._reader = JournalReader(self.channel.journal)
        events: list[Event] = []
        flow, run_id, stop = self.channel.flow, self.channel.run_id, self._live_from
        for records, (offset, record, after) in enumerate(self._reader.read_from(self._next)):
            if offset >= stop or records >= _REPLAY_RECORDS:
                break
            events.extend(unpack_events(record, flow, run_id))
            self._next = after
        else:
            self._next = max(self._next, stop)
        return events

    def close(self) -> None:
        self.channel._cursors.discard(self)  # noqa: SLF001 - see above
        self._live.clear()
        if self._reader is not None:
            self._reader.close()
            self._reader = None


class _Waker:
    """An event that any number of cursors set and one subscription waits for."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def set(self) -> None:
        self._event.set()

    async def wait(self) -> None:
        await self._event.wait()
        self._event.clear()


class Subscription:
    """An asynchronous iterator of events: in order within each run, none missing, none twice.

    Use it as `async with`; leaving the block ends it. `batches()` gives the same events in the
    lists in which they came, which costs less for each.
    """

    def __init__(
        self, *, types: tuple[type[Event], ...] = (), buffer: int = 10_000, follows: bool = False
    ) -> None:
        self._types = types
        self._buffer = buffer
        self._follows = follows  # whether further channels may come
        self._cursors: deque[_Cursor] = deque()
        self._waker = _Waker()
        self._ready: deque[Event] = deque()
        self._closed = False
        self._when_closed: list[Callable[[Subscription], object]] = []

    def on_close(self, callback: Callable[[Subscription], object]) -> None:
        """Have it called when the subscription is closed."""
        self._when_closed.append(callback)

    def follow(self, channel: Channel, *, start: int | None = None) -> None:
        """Read this channel as well, from a journal offset; from now on when none is given."""
        start = channel.published if start is None else start
        self._cursors.append(_Cursor(channel, start, self._buffer, self._waker))
        self._waker.set()

    async def batches(self) -> AsyncIterator[Sequence[Event]]:
        """The events, in the lists in which they were published or read."""
        while True:
            found = False
            for cursor in list(self._cursors):
                events = await cursor.take() if cursor.behind else ()
                if self._types:
                    events = [event for event in events if isinstance(event, self._types)]
                if events:
                    yield events
                found = found or cursor.behind
                if cursor.exhausted:
                    cursor.close()
                    with suppress(ValueError):
                        self._cursors.remove(cursor)
            if self._closed or (not self._cursors and not self._follows):
                return
            if not found:
                await self._waker.wait()

    async def events(self) -> AsyncIterator[Event]:
        """The events, one by one."""
        async for batch in self.batches():
            for event in batch:
                yield event

    def __aiter__(self) -> AsyncIterator[Event]:
        return self.events()

    def finish(self) -> None:
        """No further channel will come; the iterator ends when those it follows have."""
        self._follows = False
        self._waker.set()

    def close(self) -> None:
        """Let go of everything; a waiting iterator ends. Harmless when repeated."""
        self._closed = True
        self._follows = False
        for cursor in self._cursors:
            cursor.close()
        self._cursors.clear()
        self._waker.set()
        while self._when_closed:
            self._when_closed.pop()(self)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Subscription of {len(self._cursors)} runs>"
