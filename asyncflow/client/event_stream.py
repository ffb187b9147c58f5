"""A run's events from its journal: those that are there, and on request those to come.

Any process may be writing the journal. A `Follower` reads it and never waits, so that it serves
three kinds of reader: a `for` loop that sleeps between reads, an `async for` loop that reads in a
thread, and an engine's subscription to a run of another engine. Events count as delivered only when
they are accepted, so a reader that is cancelled in between loses nothing.
"""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final, Generic, Self

from asyncflow.client.resume_hint import resume_command
from asyncflow.errors import RunInterruptedError
from asyncflow.events.selection import EventFilter, Wish
from asyncflow.store.event_reader import READ_RECORDS, EventReader
from asyncflow.store.journal import FIRST_RECORD

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from asyncflow.store.interface import StoredRun

_FIRST_RECORDS: Final = 8  # many readers want the first event only; later reads may be larger
_MORE: Final = 4  # how many times larger
_SHORTEST_SECONDS: Final = 0.01  # between two reads if the last one brought events
_LONGEST_SECONDS: Final = 0.1  # between two reads if it did not: too short to notice, and cheap


class Follower(Generic[Wish]):
    """A position in the journal of one run, and the events after it.

    At the end of the journal, `check_whole` is called with the offset of that end: it raises if the
    journal used to be longer.
    """

    def __init__(
        self,
        run: StoredRun,
        event_filter: EventFilter[Wish],
        check_whole: Callable[[int], None],
        *,
        follow: bool = True,
    ) -> None:
        self._run = run
        self._reader = EventReader(run)
        self._filter = event_filter
        self._check_whole = check_whole
        self._follow = follow
        self._at = FIRST_RECORD
        self._records = _FIRST_RECORDS
        self.seconds = _SHORTEST_SECONDS
        """How long to wait before the next read, after a read that brought nothing."""
        self.over = False
        """Whether everything has been accepted and no more will come."""

    def look(self) -> tuple[list[Wish], tuple[int, bool]]:
        """The next events, and a token that accepts them; blocks on the disk.

        Raises:
            RunInterruptedError: There are no more events, and no engine that could add any.
            JournalError: The journal cannot be read.
        """
        at = self._at
        excerpt = self._reader.read(at, self._filter, records=self._records)
        if excerpt.after == at:
            if self._follow and self._run.is_being_written():
                return [], (at, False)
            # The engine may have written its last events between the two reads.
            excerpt = self._reader.read(at, self._filter, records=self._records)
            if excerpt.after == at:
                self._check_whole(at)
                if self._follow:
                    self._reader.release()
                    raise RunInterruptedError.of(self._run.pathspec, resume_command(self._run))
                return [], (at, True)
        return self._filter.pick(excerpt.news), (excerpt.after, excerpt.ended)

    def accept(self, token: tuple[int, bool]) -> bool:
        """Accept those events as delivered; return whether more may be there already."""
        before, (self._at, self.over) = self._at, token
        if self.over:
            self._reader.release()
        if self._at == before:
            self.seconds = min(2 * self.seconds, _LONGEST_SECONDS)
            return False
        self.seconds = _SHORTEST_SECONDS
        self._records = min(_MORE * self._records, READ_RECORDS)
        return True

    def __repr__(self) -> str:
        return f"<Follower {self._run.pathspec} at byte {self._at}>"


class EventStream(Generic[Wish]):
    """The events of a run, for `for` and for `async for`; each is delivered once.

    A stream that follows its run waits for new events, and ends with the run's last one. A loop
    that was left can be continued later. Nothing has to be closed.

    Raises:
        RunInterruptedError: The stream follows the run, and its engine is gone without recording an
            end.
        JournalError: The journal is damaged or gone.
    """

    def __init__(self, follower: Follower[Wish]) -> None:
        self._follower = follower
        self._ready: deque[Wish] = deque()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Wish:
        while not self._ready:
            if self._follower.over:
                raise StopIteration
            events, token = self._follower.look()
            if not self._take(events, token):
                time.sleep(self._follower.seconds)
        return self._ready.popleft()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Wish:
        # Start-up time: a `for` loop needs neither.
        from asyncflow._support.conditions import in_thread, pause
        from asyncflow._support.thread_pool import reading_thread

        while not self._ready:
            if self._follower.over:
                raise StopAsyncIteration
            events, token = await in_thread(reading_thread(), self._follower.look)
            if not self._take(events, token):
                await pause(self._follower.seconds)
        return self._ready.popleft()

    async def batches(self) -> AsyncIterator[Sequence[Wish]]:
        """The events, in the lists in which they were read."""
        async for event in self:
            yield [event, *self.ready()]

    def _take(self, events: Sequence[Wish], token: Any) -> bool:
        more = self._follower.accept(token)
        self._ready.extend(events)
        return more or self._follower.over

    @property
    def waiting(self) -> int:
        """How many events can be had without waiting."""
        return len(self._ready)

    def ready(self) -> list[Wish]:
        """Take the events that can be had without reading."""
        ready = [*self._ready]
        self._ready.clear()
        return ready

    def __repr__(self) -> str:
        return f"<EventStream of {self._follower!r}>"
