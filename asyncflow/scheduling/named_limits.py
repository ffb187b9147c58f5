"""The named limits of one engine, which it shares with every other engine of the store.

A task of a step under `@limit` is sent to a worker only if all its limits have a place for it, and
holds these places until its attempt ends. It takes all of them or none, so that no task holds one
place while it waits for another. A run that must wait is queued here; its other steps and other
runs go on. A waiting run costs at most a timer. A place that this engine frees wakes the next run
at once. In a folder, places that other engines free are looked for every 20 ms, and only while a
run waits. In an object store, a thread looks for them, and wakes the run.

Between engines of a folder, tickets decide. An engine that finds a limit taken takes a ticket, and
lets those with earlier ones go first. An engine that got its turn keeps it for 0.1 s, so that a
burst of short tasks pays for one ticket and not for one each. In an object store, each engine has
its share (`asyncflow.store.object_store.limit_share`), and tickets mean nothing.

Nothing here waits, and limits are opened in threads. The event loop only takes locks, and reads and
writes eight bytes if there is a rate: some microseconds.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Protocol

from asyncflow._quick_classes import NamedTuple
from asyncflow._support import log
from asyncflow._support.conditions import SureTimer
from asyncflow._support.timed_call import TimedCall
from asyncflow.errors import LimitError
from asyncflow.store.limit_files import Bounds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from concurrent.futures import Executor as ThreadExecutor
    from concurrent.futures import Future

    from asyncflow.errors import AsyncflowError
    from asyncflow.flow.graph import Graph
    from asyncflow.scheduling.facts import ReadyTasks
    from asyncflow.store.limit_interface import EngineLimit, LimitStore

_NOTHING: Final = Bounds()
_LOST_SECONDS: Final = 0.1  # a timer that is so late was lost
_KEEP_SECONDS: Final = 0.1  # how long an engine keeps its turn before it lets others go first
_READ_SECONDS: Final = 0.5  # how late, at most, a change by `asyncflow limit set` is noticed
_SLACK_SECONDS: Final = 0.02  # timers are no finer: under a high rate some tasks begin together
PATIENCE_SECONDS: Final = 2.0
"""How long a run waits before the log says so; some waiting is normal for a limit."""


class Waiter(Protocol):
    """A run, as a limit needs it."""

    number: int

    @property
    def pathspec(self) -> str:
        """`Flow/run`."""

    @property
    def orders(self) -> ReadyTasks:
        """Its tasks that are ready."""

    def abandon(self, error: AsyncflowError) -> None:
        """Fail the run: it cannot go on."""


class Need(NamedTuple):
    """What a step needs from a limit."""

    name: str
    bounds: Bounds


def needs_of(options: Any) -> tuple[Need, ...]:
    """What the step's `limit` option asks for, in the order in which limits are taken."""
    return tuple(Need(name, Bounds(*bounds)) for name, *bounds in sorted(options or ()))


class Grant:
    """What a task holds of its limits, until it is released."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held: list[tuple[_Limit, int]] = []

    def add(self, limit: _Limit, place: int) -> None:
        self._held.append((limit, place))

    def release(self) -> None:
        """Give everything back, so that others may go on. Harmless when repeated."""
        for limit in self._free():
            limit.look()

    def undo(self) -> None:
        """The same for a task that cannot begin for another reason; its start is not counted."""
        self._free(unused=True)

    def _free(self, *, unused: bool = False) -> list[_Limit]:
        freed: list[_Limit] = []
        while self._held:
            limit, place = self._held[-1]
            limit.give_back(place, unused=unused)
            freed.append(limit)
            self._held.pop()  # last: if an exception breaks this off, it is freed again
        return freed


class Limits:
    """The limits that the runs of one engine must keep."""

    def __init__(
        self,
        store: LimitStore,
        disk: ThreadExecutor,
        wake: Callable[[Any], object],
        *,
        grace_seconds: float = 0.0,
    ) -> None:
        """Create it; `wake` is called with a run when its limit may be free.

        `grace_seconds` is how long a task has to end once it was told to.
        """
        self._store, self._grace_seconds = store, grace_seconds
        self._disk = disk
        self._wake = wake
        self._limits: dict[str, _Limit] = {}
        self._loop = asyncio.get_running_loop()
        self._reading: Future[dict[str, Bounds]] | None = None
        self._timer: SureTimer | None = None
        self._closed = False

    # --- opening and closing ---

    def open(self, graph: Graph) -> None:
        """Open the limits of a flow's steps; in a thread, and before any of its tasks is assigned.

        Raises:
            LimitError: A limit cannot be made or read, or it is damaged.
        """
        names = {need.name for node in graph for need in needs_of(node.options.get("limit"))}
        for name in sorted(names):
            file = self._store.open(name, grace_seconds=self._grace_seconds)
            self._loop.call_soon_threadsafe(self._add, file, file.bounds())

    def _add(self, file: EngineLimit, bounds: Bounds) -> None:
        known = self._limits.get(file.name)
        if known is None and not self._closed:
            self._limits[file.name] = _Limit(file, bounds, self._loop, self._wake)
            return
        file.close()
        if known is not None:
            known.set(bounds)

    def leave(self) -> None:
        """Return when other engines may have all that this one had; no task runs any more.

        For a thread: it may make requests.
        """
        files = [limit.file for limit in self._limits.values()]
        for file in files:
            file.leave(wait=False)
        for file in files:
            file.leave()

    def close(self) -> None:
        """Release everything; no task runs any more, and no thread."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for limit in self._limits.values():
            limit.close()

    # --- what the dispatcher asks and tells ---

    def may_take(self, waiter: Waiter, needs: Sequence[Need]) -> bool:
        """Whether `take` may succeed now; if not, the run is woken when it may."""
        self._keep_reading()
        return all(self._limits[need.name].may_take(waiter, need.bounds) for need in needs)

    def take(
        self, waiter: Waiter, needs: Sequence[Need], grant: Grant | None = None
    ) -> Grant | None:
        """Take all that a task needs; None if that is impossible now: the run is woken later.

        What it takes is noted in `grant`, which whoever may be broken off here has made before.

        Raises:
            LimitError: A limit's file cannot be read or written.
        """
        grant = Grant() if grant is None else grant
        try:
            for need in needs:
                if not self._limits[need.name].take(waiter, need.bounds, grant):
                    grant.undo()
                    self._wait_for(need, waiter, needs)
                    return None
            if self._begin(waiter, needs):
                for need in needs:
                    self._limits[need.name].had_its_turn(waiter)
                return grant
        except BaseException:
            grant.undo()
            for need in needs:
                self._limits[need.name].give_back_unnoted()
            raise
        grant.undo()
        return None

    def _wait_for(self, lacking: Need, waiter: Waiter, needs: Sequence[Need]) -> None:
        """Of the limits that a task needs, go on to want those that are taken before this one.

        Engines that hold one limit's place while they wait for another one's take them in the same
        order, and have nothing of those behind: so they do not wait for each other.
        """
        at = needs.index(lacking)
        for need in needs[:at]:
            self._limits[need.name].keep(waiter, need.bounds)
        for need in needs[at + 1 :]:
            self._limits[need.name].let_others(waiter)

    def _begin(self, waiter: Waiter, needs: Iterable[Need]) -> bool:
        """Count the task in all rates, or in none."""
        begun: list[tuple[_Limit, float]] = []
        for need in needs:
            limit = self._limits[need.name]
            per_second = limit.effective(need.bounds).per_second
            if per_second is None:
                continue
            if not limit.begin_one(waiter, per_second):
                for other, rate in begun:
                    other.file.undo_one(rate)
                return False
            begun.append((limit, per_second))
        return True

    def forget(self, waiter: Waiter) -> None:
        """Remove a run that has ended from all queues."""
        for limit in self._limits.values():
            limit.forget(waiter)

    def settle(self) -> None:
        """All woken runs were tried: leave the queue of each limit that none of them waits for.

        A run that waits for no limit any more keeps no place for tasks to come, either: these may
        be gone, and the run may go on for long.
        """
        settled: set[int] = set()
        for limit in self._limits.values():
            settled.update(limit.settle())
        for number in settled:
            if not any(limit.has_waiting(number) for limit in self._limits.values()):
                for limit in self._limits.values():
                    limit.keep_none(number)

    # --- what was set ---

    def _keep_reading(self) -> None:
        if self._timer is None:
            self._timer = SureTimer(self._loop, _READ_SECONDS, self._read)

    def _read(self) -> None:
        """Read what `asyncflow limit set` has set, as long as a limit is in use."""
        if self._reading is not None and self._reading.done():
            self._on_read(self._reading)  # the call that tells of it is late, or lost
        ringing, self._timer = self._timer, None
        if any(limit.in_use for limit in self._limits.values()):
            if self._reading is None:
                files = [limit.file for limit in self._limits.values()]
                self._reading = self._disk.submit(_read_bounds, files)
                self._reading.add_done_callback(self._tell_of_read)
            self._keep_reading()
        if ringing is not None:
            ringing.cancel()

    def _tell_of_read(self, reading: Future[dict[str, Bounds]]) -> None:
        """Called in the thread that has read."""
        with suppress(RuntimeError):  # the program has closed the loop
            self._loop.call_soon_threadsafe(self._on_read, reading)

    def _on_read(self, reading: Future[dict[str, Bounds]]) -> None:
        if self._closed or self._reading is not reading:
            return  # or it was noticed without this call
        self._reading = None
        for name, bounds in reading.result().items():
            self._limits[name].set(bounds)
        for limit in self._limits.values():
            limit.check()
            limit.warn_of_long_waits()

    def __repr__(self) -> str:
        return f"<Limits {', '.join(map(repr, self._limits.values()))}>"


def _read_bounds(files: Iterable[EngineLimit]) -> dict[str, Bounds]:
    found = {}
    for file in files:
        # the file or the disk is damaged: the former settings still apply
        with suppress(LimitError):
            found[file.name] = file.bounds()
    return found


def _was_lost(timer: TimedCall, loop: asyncio.AbstractEventLoop) -> bool:
    """Whether the call of a timer was lost."""
    return timer.is_overdue(loop.time(), _LOST_SECONDS)


class _Limit:
    """One limit in one engine: the places that it holds, and the runs that wait."""

    def __init__(
        self,
        file: EngineLimit,
        bounds: Bounds,
        loop: asyncio.AbstractEventLoop,
        wake: Callable[[Any], object],
    ) -> None:
        self.file = file
        self._loop, self._wake = loop, wake
        self._set = bounds
        self._places: dict[int, Waiter] = {}  # the places of this engine's tasks, with their runs
        self._full = False  # the engine has all places itself: looking again is useless
        self._waiting: OrderedDict[int, Waiter] = OrderedDict()
        self._woken: Waiter | None = None
        self._tried: list[int] = []  # the runs that were woken, and may still wait
        self._kept: set[int] = set()  # runs that have a place here once others of their limits do
        self._ticket: int | None = None
        self._keeps_until = 0.0
        self._blocked_until = 0.0
        self._timer: TimedCall | None = None
        self._asked = bounds
        self._since: dict[int, float] = {}  # when a run began to wait; `inf` once the log said so
        file.watch(self._on_news)

    @property
    def in_use(self) -> bool:
        """Whether a task has something of it, or a run waits."""
        return bool(self._places or self._waiting or self._blocked_until > self._loop.time())

    def effective(self, bounds: Bounds) -> Bounds:
        """The bounds for a step that asks for these: those that were set win."""
        return bounds if self._set == _NOTHING else self._set.or_else(bounds)

    def set(self, bounds: Bounds) -> None:
        """Note the bounds that are set now."""
        if bounds != self._set:
            is_rate_new = bounds.per_second != self._set.per_second
            self._set = bounds
            if is_rate_new:
                self._hasten()
            self._since = dict.fromkeys(self._since, self._loop.time())
            self.look()

    def _hasten(self) -> None:
        """Do not wait as long as a slower rate would that was set before."""
        per_second = self.effective(self._asked).per_second
        if per_second is not None:
            with suppress(LimitError):  # whoever waits tries again, and hears of it
                self.file.hasten(per_second, time.time())

    # --- taking ---

    def may_take(self, waiter: Waiter, bounds: Bounds) -> bool:
        self._asked = bounds
        at_once = self.effective(bounds).at_once
        if at_once is not None and len(self._places) >= at_once:
            self._full = True
            if not at_once and self._ticket is None:  # others are to see that this engine waits
                with suppress(LimitError):  # only that it is counted is lost
                    self._join_line()
            self._wait(waiter)
            return False
        seconds = self._blocked_until - self._loop.time()
        if seconds > 0:
            self._wait(waiter)
            self._look_after(seconds)
            return False
        return True

    def take(self, waiter: Waiter, bounds: Bounds, grant: Grant) -> bool:
        """Take a place, if the step asks for one, unless another engine has waited longer."""
        self._asked = bounds
        at_once = self.effective(bounds).at_once
        if at_once is not None and len(self._places) >= at_once:
            self._full = True
            self._wait(waiter)
            return False
        if self._loop.time() > self._keeps_until and self.file.is_preceded(self._ticket):
            self._block(waiter, self.file.look_seconds)
            return False
        if at_once is None:
            return True
        place = self.file.take_below(at_once, self._places)
        if place is None:
            self._block(waiter, self.file.look_seconds)
            return False
        grant.add(self, place)  # first: `give_back_unnoted` finds what is not in `_places`
        self._places[place] = waiter
        return True

    def begin_one(self, waiter: Waiter, per_second: float) -> bool:
        """Count a task that begins now, if the rate allows it."""
        slack = max(0.0, _SLACK_SECONDS - 1 / per_second)
        seconds = self.file.begin_one(per_second, slack, time.time())
        if seconds:
            self._block(waiter, seconds)
        return not seconds

    def had_its_turn(self, waiter: Waiter) -> None:
        """A task begins: give up the ticket; engines that wait go first only after a moment."""
        if waiter.number in self._kept:
            self._kept.discard(waiter.number)
            self._tried.append(waiter.number)
        if self._since.get(waiter.number) != math.inf:
            self._since.pop(waiter.number, None)
        if self._ticket is not None:
            self._keeps_until = self._loop.time() + _KEEP_SECONDS
            self._leave_line()

    def give_back(self, place: int, *, unused: bool = False) -> None:
        """Free a place that a task no longer needs, or did not need after all."""
        self._full = False
        if place in self._places:
            self.file.free_place(place, unused=unused)
            del self._places[place]  # last: until then this engine does not take it again

    def give_back_unnoted(self) -> None:
        """Give back what was taken when an exception broke off what should have noted it."""
        self.file.keep_only(self._places, self._ticket)

    def keep(self, waiter: Waiter, bounds: Bounds) -> None:
        """A task of a run could begin here, and waits for another limit: want one place for it."""
        at_once = self.effective(bounds).at_once
        if at_once is not None:
            self._kept.add(waiter.number)
            self.file.expect(waiter.number, at_once, 1)

    def keep_none(self, number: int) -> None:
        """No task of a run waits for another limit any more."""
        if number in self._kept:
            self._kept.discard(number)
            self.file.expect(number, 0, 0)

    def let_others(self, waiter: Waiter) -> None:
        """Tasks of a run wait for another limit, and take no place here before one there."""
        self._kept.discard(waiter.number)
        if waiter.number not in self._waiting:
            self.file.let_others(waiter.number)

    # --- waiting ---

    def _block(self, waiter: Waiter, seconds: float) -> None:
        """Note that the limit is not free now, for a reason outside of this engine."""
        self._blocked_until = self._loop.time() + seconds
        if self._ticket is None:
            self._join_line()
        self._wait(waiter)
        self._look_after(seconds)

    def _wait(self, waiter: Waiter) -> None:
        first = waiter is self._woken  # its turn had come, and is not over
        if first or waiter.number not in self._waiting:
            self._waiting[waiter.number] = waiter
            self._waiting.move_to_end(waiter.number, last=not first)
        self._since.setdefault(waiter.number, self._loop.time())
        at_once = self.effective(self._asked).at_once or 0  # a rate alone has no places
        self.file.expect(waiter.number, at_once, max(1, waiter.orders.ready))

    def check(self) -> None:
        """Fail the runs whose tasks have places of which others may have taken possession."""
        error = self.file.lost() if self._places else None
        if error is not None:
            for waiter in {each.number: each for each in self._places.values()}.values():
                waiter.abandon(error)

    def warn_of_long_waits(self) -> None:
        """Log why no task of a run under this limit starts; again only if the limit changes."""
        long_ago = self._loop.time() - PATIENCE_SECONDS
        served = {waiter.number for waiter in self._places.values()}
        for number, waiter in self._waiting.items():
            since = self._since.get(number, math.inf)
            if since <= long_ago and number not in served:
                self._since[number] = math.inf
                in_use = len(self._places) + self.file.in_use()
                allowed = str(self.effective(self._asked))
                what = f"a run waits for limit {self.file.name}"
                log.warning(what, run=waiter.pathspec, allowed=allowed, in_use=in_use)

    def _look_after(self, seconds: float) -> None:
        due = self._loop.time() + max(seconds, 0.001)
        if self._timer is not None:
            if self._timer.when <= due and not _was_lost(self._timer, self._loop):
                return
            self._timer.cancel()
        self._timer = TimedCall(self._loop, due, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self.look()

    def look(self) -> None:
        """Wake the first run of the queue: it may be able to go on."""
        self._blocked_until = 0.0
        self._full = False
        if self._waiting:
            number, self._woken = next(iter(self._waiting.items()))
            self._tried.append(number)
            self._wake(self._woken)
            self._waiting.pop(number, None)  # last: an exception must not lose the run

    def settle(self) -> list[int]:
        """The woken runs have been tried. Return those that do not wait here any more."""
        self._woken = None
        settled = [number for number in self._tried if number not in self._waiting]
        for number in settled:
            if number not in self._kept:
                self.file.expect(number, 0, 0)
        self._tried.clear()
        if not self._waiting:
            self._leave_line()
        elif not self._full and (self._timer is None or _was_lost(self._timer, self._loop)):
            self._look_after(self.file.look_seconds)
        return settled

    def has_waiting(self, number: int) -> bool:
        """Whether a run waits here."""
        return number in self._waiting

    def _on_news(self) -> None:
        """The limit may be free; called in any thread."""
        with suppress(RuntimeError):  # the program has closed the loop
            self._loop.call_soon_threadsafe(self._hear)

    def _hear(self) -> None:
        self.set(self.file.bounds())
        self.check()
        self.look()

    def _join_line(self) -> None:
        try:
            self._ticket = self.file.join_line()
        except BaseException:  # a ticket that nobody knows would keep other engines waiting
            self.give_back_unnoted()
            raise

    def _leave_line(self) -> None:
        if self._ticket is not None:
            self.file.leave_line(self._ticket)
            self._ticket = None

    def forget(self, waiter: Waiter) -> None:
        """Remove a run from the queue."""
        self._waiting.pop(waiter.number, None)
        self._since.pop(waiter.number, None)
        self._kept.discard(waiter.number)
        self.file.expect(waiter.number, 0, 0)
        if not self._waiting:
            self._leave_line()

    def close(self) -> None:
        """Release all places."""
        if self._timer is not None:
            self._timer.cancel()
        self.file.close()

    def __repr__(self) -> str:
        return f"{self.file.name}: {len(self._places)} taken, {len(self._waiting)} waiting"
