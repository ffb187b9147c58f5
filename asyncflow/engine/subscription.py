"""Publish and subscribe within one process: events that are already in a journal.

A `Channel` publishes the events of one run. It knows up to where the journal has been published. A
`Subscription` reads any number of channels. It reads earlier events from the journal, and later
ones as the objects that were published. The number of events that wait for a subscription is
limited, over all runs. Beyond the limit, the waiting events of a run are dropped, and the
subscription reads them from the journal. So a slow reader does not delay a run, loses no event, and
needs no more memory.

Nothing here scans. A channel wakes its readers, and a subscription takes turns with the channels
that have something for it. Events count as delivered only when they are accepted, so a reader that
is cancelled while it waits loses nothing.

This module writes nothing and calls no user code: it only wakes tasks that wait.
"""

from __future__ import annotations

import asyncio
from collections import deque
from heapq import heappop, heappush
from itertools import count
from math import inf
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, Self, TypeVar, cast
from weakref import WeakKeyDictionary, ref

from asyncflow._support.conditions import Condition, in_thread
from asyncflow._support.event_loop import check_loop
from asyncflow._support.thread_pool import reading_thread
from asyncflow.errors import (
    AsyncflowError,
    JournalError,
    RunInterruptedError,
    SubscriptionBusyError,
)
from asyncflow.events.records import ENDINGS
from asyncflow.events.selection import OutputChunk, Wish
from asyncflow.events.types import Event
from asyncflow.store.event_reader import EventReader

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from asyncflow.events.selection import EventFilter, Publication
    from asyncflow.store.interface import StoredRun

Got_co = TypeVar("Got_co", bound=Event, covariant=True)

BUFFER_BYTES: Final = 16 << 20  # events of 64 KiB each are few, but take much memory
PACE_SECONDS: Final = 0.02
"""The shortest time between two wake-ups of a subscriber.

A wake-up costs as much as some twenty events, and a run of short tasks publishes every few hundred
microseconds. The first event after a pause is delivered at once, and so is a run's last.
"""
_TAKEN_EVENTS: Final = 1000  # delivered in one go
_TURN_EVENTS: Final = 1000  # delivered in one turn of the loop, to all subscribers: some 0.2 ms
_TOGETHER_SECONDS: Final = (
    0.002  # those that are to be woken so soon after others are woken with them
)
_LOST_SECONDS: Final = 0.1  # an alarm that is so late was lost
_APART_LINES: Final = 1000  # more lines of output are split in a thread: that takes some ms


class _Delivery:
    """A batch of events that were published together."""

    __slots__ = ("_events", "count", "news", "size", "upto")

    def __init__(self, news: Sequence[Publication], upto: int, size: int) -> None:
        self.news = news
        self.count = sum([1 if isinstance(item, Event) else item.count for item in news])
        self.upto = upto
        """The offset in the journal after the last of them."""
        self.size = size
        """Their length in the journal, in bytes."""
        self._events: Sequence[Event] | None = None

    def pending(self) -> int:
        """How many lines of output are not split into events yet."""
        return sum(item.pending for item in self.news if isinstance(item, OutputChunk))

    def pick(self, event_filter: EventFilter[Wish]) -> Sequence[Wish]:
        """The events that the filter selects. Subscribers to all events share one list."""
        if not event_filter.takes_all:
            return event_filter.pick(self.news)
        if self._events is None:
            self._events = event_filter.pick(self.news)
        return cast("Sequence[Wish]", self._events)


class Channel:
    """Publishes the events of one run."""

    def __init__(self, run: StoredRun, published: int) -> None:
        self.run, self.flow, self.run_id = run, run.flow, run.run_id
        self.published = published
        """The offset up to which the journal's events have been published."""
        self.closed = False
        """Whether nothing more will be published."""
        self.ended = False
        """Whether the run's last event has been published."""
        self.first = published
        """The offset of the run's first event."""
        self._cursors: set[_Cursor] = set()

    @property
    def pathspec(self) -> str:
        """`Flow/run`."""
        return f"{self.flow}/{self.run_id}"

    def publish(self, news: Sequence[Publication], upto: int) -> None:
        """Publish the events that the journal holds from `published` to `upto`."""
        size = upto - self.published
        self.published = upto
        if news and news[-1].code in ENDINGS:
            self.ended = True
        cursors = tuple(self._cursors)  # a copy: a forgotten subscription may leave at any time
        if cursors:
            batch = _Delivery(news, upto, size)
            for cursor in cursors:
                cursor.offer(batch)

    def close(self) -> None:
        """Publish nothing more, and let readers know."""
        self.closed = True
        for cursor in tuple(self._cursors):
            cursor.ring()

    def enter(self, cursor: _Cursor) -> None:
        """Publish to this cursor, too, from now on."""
        self._cursors.add(cursor)

    def leave(self, cursor: _Cursor) -> None:
        """Publish nothing more to it. Harmless when repeated, and from any thread."""
        self._cursors.discard(cursor)

    @property
    def subscribers(self) -> int:
        """The number of current readers."""
        return len(self._cursors)

    def __repr__(self) -> str:
        state = "closed" if self.closed else "open"
        return f"<Channel {self.pathspec} {state}, {self.subscribers} subscribers>"


class _Mailbox:
    """The state that a subscription's cursors share: how much waits, and which have something.

    It has no reference to the subscription, so that a dropped subscription can be collected.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.waiting = 0
        self.waiting_bytes = 0
        self.ringing: deque[_Cursor] = deque()
        self.due = inf
        """When the reader is to be woken, by the loop's clock; infinite if nothing says so."""
        self._woken = False
        self._waiting: Condition | None = None
        self._woken_at = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None  # the reader's loop

    @property
    def is_full(self) -> bool:
        """Whether more events wait than the limit allows."""
        return self.waiting > self.limit or self.waiting_bytes > BUFFER_BYTES

    def ring(self, cursor: _Cursor) -> None:
        """Note that this cursor has something. Wake the reader, but not too often."""
        self.ringing.append(cursor)
        if self.due < inf or self._woken:
            return
        if self._loop is None or self._loop.time() - self._woken_at >= PACE_SECONDS:
            self.wake()
        else:
            _bell_of(self._loop).ring_at(self._woken_at + PACE_SECONDS, self, self._loop)

    def wake(self) -> None:
        """Wake the reader now."""
        self.due = inf
        self._woken = True
        if self._waiting is not None:
            self._waiting.look()

    async def wait(self, seconds: float | None = None) -> None:
        """Wait until something is there or the subscription ends, for at most `seconds`."""
        loop = self._loop = asyncio.get_running_loop()
        self._woken = False
        # If the bell that should wake us is lost, `ringing` still ends the wait.
        self._waiting = Condition(lambda: self._woken or bool(self.ringing))
        try:
            await self._waiting.wait(seconds)
        finally:
            self._waiting = None  # it refers to this mailbox: else only the collector would free it
        self._woken, self.due = True, inf
        self._woken_at = loop.time()


class _Bell:
    """Wakes the readers of one event loop at the times that their pace allows.

    One timer serves them all, and those whose times are near are woken together. They take turns of
    the loop: else ten readers of a busy run would keep it from anything else for milliseconds.

    It keeps nothing alive: a mailbox refers to its loop, and the loop may close before the time.
    """

    def __init__(self) -> None:
        self._order = count()
        self._waiting: list[tuple[float, int, ref[_Mailbox]]] = []  # a heap
        self._rings_at = inf  # no handle is kept: it would refer to the loop, which has this bell

    def ring_at(self, due: float, mailbox: _Mailbox, loop: asyncio.AbstractEventLoop) -> None:
        """Wake this reader then."""
        mailbox.due = due
        heappush(self._waiting, (due, next(self._order), ref(mailbox)))
        if due < self._rings_at or self._rings_at < loop.time() - _LOST_SECONDS:
            self._rings_at = due
            loop.call_at(due, self._ring, due, loop)

    def _ring(self, rings_at: float, loop: asyncio.AbstractEventLoop) -> None:
        """Wake those whose time has come, as many as one turn of the loop can serve."""
        if rings_at != self._rings_at:  # an earlier time was set since
            return
        # Its own time has come, whatever the clock says: that of uvloop may be behind its timer.
        until, events = max(rings_at, loop.time()) + _TOGETHER_SECONDS, 0
        while self._waiting and self._waiting[0][0] <= until and events < _TURN_EVENTS:
            due, _, waiting = heappop(self._waiting)
            mailbox = waiting()
            if mailbox and mailbox.due == due:  # else it is gone, or has been woken meanwhile
                events += mailbox.waiting
                mailbox.wake()
        self._rings_at = self._waiting[0][0] if self._waiting else inf
        if self._rings_at <= until:
            loop.call_soon(self._ring, self._rings_at, loop)
        elif self._rings_at < inf:
            loop.call_at(self._rings_at, self._ring, self._rings_at, loop)


_bells: WeakKeyDictionary[asyncio.AbstractEventLoop, _Bell] = WeakKeyDictionary()


def _bell_of(loop: asyncio.AbstractEventLoop) -> _Bell:
    bell = _bells.get(loop)
    if bell is None:
        bell = _bells[loop] = _Bell()
    return bell


class _Cursor:
    """One subscription's position in one channel."""

    def __init__(self, channel: Channel, start: int, mailbox: _Mailbox) -> None:
        self.channel = channel
        self._mailbox = mailbox
        self._next = start  # everything before this offset has been delivered
        self._live: deque[_Delivery] = deque()
        self._live_from = channel.published  # the journal offset at which `_live` begins
        self._rings = False
        self._reader = EventReader(channel.run)
        channel.enter(self)
        if self.behind or channel.closed:
            self.ring()

    # --- what its channel tells it ---

    def offer(self, batch: _Delivery) -> None:
        """Keep a batch while there is room; else drop what waits and read the journal later."""
        mailbox = self._mailbox
        self._live.append(batch)
        mailbox.waiting += batch.count
        mailbox.waiting_bytes += batch.size
        if mailbox.is_full:
            self._forget()
            self._live_from = batch.upto
        if not self._rings:
            self.ring()
        if self.channel.ended:
            mailbox.wake()

    def ring(self) -> None:
        """Announce that events wait here."""
        if not self._rings:
            self._rings = True
            self._mailbox.ring(self)

    # --- what its subscription asks of it ---

    def answer(self) -> None:
        """Note that the subscription looks here now; later batches announce themselves again."""
        self._rings = False

    @property
    def behind(self) -> bool:
        """Whether events are ready."""
        return self._next < self.channel.published

    @property
    def exhausted(self) -> bool:
        """Whether all events have been delivered and no more will come."""
        return self.channel.closed and not self.behind

    async def look(self, event_filter: EventFilter[Wish]) -> tuple[Sequence[Wish], int]:
        """The next selected events, and the offset after them. `advance` accepts them."""
        if self._next < self._live_from:
            start, stop, reader = self._next, self._live_from, self._reader

            def replay() -> tuple[list[Wish], int]:
                try:
                    excerpt = reader.read(start, event_filter, stop=stop)
                finally:
                    reader.release()  # thousands of runs may have unread events
                return event_filter.pick(excerpt.news), excerpt.after

            return await in_thread(reading_thread(), replay)
        if len(self._live) == 1 and self._live[0].count <= _APART_LINES:
            return self._live[0].pick(event_filter), self._live[0].upto
        picked: list[Wish] = []
        upto = self._next
        for batch in self._live:
            if (
                batch.count > _APART_LINES
                and event_filter.takes_lines
                and batch.pending() > _APART_LINES
            ):
                if picked:
                    break
                return await in_thread(reading_thread(), batch.pick, event_filter), batch.upto
            picked += batch.pick(event_filter)
            upto = batch.upto
            if len(picked) >= _TAKEN_EVENTS:
                break
        return picked, upto

    def advance(self, upto: int) -> None:
        """Accept everything before this offset as delivered."""
        self._next = upto
        while self._live and self._live[0].upto <= upto:
            batch = self._live.popleft()
            self._live_from = batch.upto
            self._mailbox.waiting -= batch.count
            self._mailbox.waiting_bytes -= batch.size

    def _forget(self) -> None:
        for batch in self._live:
            self._mailbox.waiting -= batch.count
            self._mailbox.waiting_bytes -= batch.size
        self._live.clear()

    def close(self) -> None:
        self.channel.leave(self)
        self._forget()


class Tail(Protocol[Got_co]):
    """A run of another process, whose journal is polled for new events."""

    seconds: float
    """The time until the next poll, in seconds."""
    over: bool
    """Whether everything has been accepted and no more will come."""

    def look(self) -> tuple[Sequence[Got_co], Any]:
        """The next events, and a token that accepts them; blocks on the disk.

        Raises:
            RunInterruptedError: There are no more events, and no engine that could add any.
            JournalError: The journal cannot be read.
        """

    def accept(self, token: Any) -> bool:
        """Accept those events as delivered. Return whether there may be more at once."""


class Subscription(Generic[Wish]):
    """An asynchronous iterator of events: in order within each run, none missing, none twice.

    Use it as `async with`; leaving the block ends it, and so does dropping the last reference. One
    task iterates at a time. A loop that was left, or cancelled, can be continued later. `batches()`
    gives the same events in lists as they were published, which costs less per event.

    Raises:
        RunInterruptedError: It watches one run, and that run's engine is gone without recording an
            end.
        JournalError: A journal that it has to read is damaged or gone.
        SubscriptionBusyError: Another task iterates over it.
        AsyncflowError: It is iterated over on another event loop than its engine's.
    """

    def __init__(
        self,
        event_filter: EventFilter[Wish],
        *,
        loop: asyncio.AbstractEventLoop | None = None,
        buffer: int = 10_000,
        follows: bool = False,
        raises_if_interrupted: bool = False,
        tail: Tail[Wish] | None = None,
    ) -> None:
        self._loop = loop
        self._mailbox = _Mailbox(buffer)
        self._cursors: set[_Cursor] = set()
        self._filter = event_filter
        self._follows = follows  # whether further channels may come
        self._finished = False  # whether only events that are there by now still matter
        self._raises_if_interrupted = (
            raises_if_interrupted  # whether a run that ends without a last event is an error
        )
        self._tail = tail
        self._ready: Iterator[Wish] = iter(())  # fetched, but not delivered yet
        self._fetching = False
        self.closed = False
        """Whether the subscriber has ended it; nothing more comes."""

    def follow(self, channel: Channel, *, start: int | None = None) -> None:
        """Read this channel as well, from a journal offset; without one, from now on."""
        start = channel.published if start is None else start
        self._cursors.add(_Cursor(channel, start, self._mailbox))

    # --- iterating ---

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Wish:
        for event in self._ready:
            return event
        events = await self._fetch()
        if not events:
            raise StopAsyncIteration
        self._ready = iter(events)
        return next(self._ready)

    async def batches(self) -> AsyncIterator[Sequence[Wish]]:
        """The events, in the lists in which they were published or read."""
        while batch := list(self._ready) or await self._fetch():
            yield batch

    async def _fetch(self) -> Sequence[Wish]:
        """The next events, at least one; an empty list when no more will come."""
        if self._loop is not None:
            check_loop(self._loop)
        if self._fetching:
            raise SubscriptionBusyError
        self._fetching = True
        events: Sequence[Wish] = ()
        try:
            while not events:
                if self._mailbox.ringing:
                    events = await self._take(self._mailbox.ringing.popleft())
                elif self._tail is not None and not self.closed:
                    events = await self._take_from_tail(self._tail)
                elif self._follows or self._cursors:
                    await self._mailbox.wait()
                else:
                    break
        finally:
            self._fetching = False
        return events

    async def _take(self, cursor: _Cursor) -> Sequence[Wish]:
        """Take the next events of one run."""
        cursor.answer()
        events: Sequence[Wish] = ()
        try:
            if cursor.behind:
                found, upto = await cursor.look(self._filter)
                if not self.closed:  # another task may have closed it meanwhile
                    cursor.advance(upto)
                    events = found
        except JournalError:
            self._drop(cursor)  # the other runs' journals may be whole: they go on
            raise
        finally:
            if cursor.behind and cursor in self._cursors:
                cursor.ring()
        if cursor.exhausted:
            self._settle(cursor, events)
        return events

    def _settle(self, cursor: _Cursor, last: Sequence[Wish]) -> None:
        """Deliver the last events of a run."""
        channel = cursor.channel
        interrupted = self._raises_if_interrupted and not channel.ended
        if interrupted and last:
            cursor.ring()  # deliver these first, raise next time
            return
        self._drop(cursor)
        if interrupted and not self.closed:
            from asyncflow.client.resume_hint import resume_command

            raise RunInterruptedError.of(channel.pathspec, resume_command(channel.run))

    def _drop(self, cursor: _Cursor) -> None:
        cursor.close()
        self._cursors.discard(cursor)

    async def _take_from_tail(self, tail: Tail[Wish]) -> Sequence[Wish]:
        try:
            events, token = await in_thread(reading_thread(), tail.look)
        except AsyncflowError:
            self._tail = None  # it would raise the same again
            raise
        if self.closed:
            return ()
        more = tail.accept(token)
        if tail.over or (self._finished and not more):
            self._tail = None
        elif not more and not events:
            await self._mailbox.wait(tail.seconds)
        return events

    # --- ending ---

    def finish(self) -> None:
        """Expect no further channel. The iterator ends with the channels that it follows.

        For a run in another process, it ends with the events that the journal has now.
        """
        self._follows = False
        self._finished = True
        self._mailbox.wake()

    def close(self) -> None:
        """End the subscription; a waiting iterator ends. Harmless when repeated."""
        self.closed = True
        self._follows = False
        self._tail = None
        for cursor in self._cursors:
            cursor.close()
        self._cursors.clear()
        self._mailbox.ringing.clear()
        self._ready = iter(())
        self._mailbox.wake()

    async def aclose(self) -> None:
        """The same as `close`, for `contextlib.aclosing`."""
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        for cursor in getattr(self, "_cursors", ()):  # __init__ has raised
            cursor.channel.leave(cursor)

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"of {len(self._cursors)} runs"
        return f"<Subscription {state}>"
