"""The named limits of an object store: the requests that engines, and whoever looks, make for them.

A thread for each limit in use reads and writes the limit's object, as `LimitShare` says. It runs
from the first task that needs the limit until the engine has left. The event loop only takes what
the engine has already, under a lock that nobody holds during a request.
"""

from __future__ import annotations

import time
from random import uniform
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING, Final

from asyncflow._support import log
from asyncflow._support.commit_points import reached
from asyncflow._support.thread_pool import no_thread
from asyncflow.errors import LimitError
from asyncflow.store.files import reason_of
from asyncflow.store.limit_files import LimitUse
from asyncflow.store.object_store.limit_share import LimitShare, Look, Timing
from asyncflow.store.object_store.limit_state import (
    LIMITS,
    MOST_BYTES,
    LimitState,
    damaged,
    is_limit,
    object_of,
    pack,
    unpack_whole,
)
from asyncflow.values import LIMIT_NAME

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from asyncflow.store.limit_files import Bounds
    from asyncflow.store.object_store.objects import Objects

TIMING = Timing()
"""How long engines wait for what; a test may have other times."""
_PAUSE_SECONDS: Final = 0.05  # after a request, so that what tasks give back goes together
_FIRST_PAUSE_SECONDS: Final = 0.1  # after a failed request
_LONGEST_PAUSE_SECONDS: Final = 2.0
_LEAVING_SECONDS: Final = 5.0  # how long an engine that closes waits for the store
_TRIES: Final = 100  # of a change to a limit that engines change all the time
_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def _awake() -> float:
    """Seconds by a clock that counts the time in which the machine sleeps, too."""
    return time.clock_gettime(_CLOCK)


class ObjectLimits:
    """The limits of a store in an object store; implements `LimitStore`."""

    def __init__(self, objects: Objects, host: str, engine: Callable[[], str]) -> None:
        """Make no request; `engine` names each engine that opens a limit, `host` its machine."""
        self._objects, self._host, self._engine = objects, host, engine

    def __repr__(self) -> str:
        return f"<ObjectLimits {self._objects.location}>"

    def names(self) -> list[str]:
        """The names of the limits that there are, sorted.

        Raises:
            LimitError: They cannot be listed.
        """
        try:
            found = [facts.name for facts in self._objects.listed(LIMITS)]
        except OSError as error:
            message = f"the limits of {self._objects.location} cannot be listed: {reason_of(error)}"
            raise LimitError(message) from error
        names = (name.split("/")[1] for name in found if is_limit(name))
        return sorted(name for name in names if LIMIT_NAME.fullmatch(name))

    def open(self, name: str, *, grace_seconds: float) -> SharedLimit:
        """Open a limit for an engine whose tasks end within `grace_seconds` when told to.

        Raises:
            LimitError: No limit can have that name; it is damaged, or cannot be read.
        """
        timing = TIMING
        longer = max(0.0, timing.patience + grace_seconds + timing.stop - timing.lease)
        share = LimitShare(self._engine(), self._host, timing._replace(lease=timing.lease + longer))
        limit = SharedLimit(self._objects.with_patience(0), name, share)
        state, version, modified = self._read(name)
        share.on_seen(state, version, modified, time.monotonic())
        return limit

    def look(self, name: str) -> LimitUse:
        """The bounds of a limit, and how much of it is in use as far as engines have said.

        Raises:
            LimitError: There is none with that name, or it cannot be read.
        """
        state, version, _ = self._read(name)
        if not version:
            raise LimitError(f"the store has no limit {name!r}")
        engines = state.engines.values()
        in_use = sum(entry.in_use for entry in engines)
        return LimitUse(state.bounds, in_use, sum(entry.is_hungry for entry in engines))

    def set_bounds(self, name: str, bounds: Bounds) -> None:
        """Set new bounds; a missing limit is made, and a damaged one mended.

        Mending a damaged limit takes all places from the engines that have some: they stop their
        tasks under it.

        Raises:
            LimitError: No limit can have that name, it cannot be read or written, or a later
                version of asyncflow wrote it.
        """
        for _ in range(_TRIES):
            try:
                state, version, _modified = _read_any(self._objects, name)
                changed = (state or LimitState()).with_bounds(bounds)
                reached("limit.set")
                if _write(self._objects, object_of(name), changed, version) is not None:
                    return
            except OSError as error:
                raise _unusable(name, error) from error
            time.sleep(uniform(0, _PAUSE_SECONDS))  # noqa: S311 - no secret: engines should not ask all at once
        raise LimitError(f"the limit {name!r} was changed again and again: try it once more")

    def _read(self, name: str) -> tuple[LimitState, str, float]:
        try:
            return _read(self._objects, name)
        except OSError as error:
            raise _unusable(name, error) from error


class SharedLimit:
    """One limit, open in one engine; implements `EngineLimit`."""

    def __init__(self, objects: Objects, name: str, share: LimitShare) -> None:
        """Make no request, and start no thread."""
        self.name: Final = name
        self.look_seconds: Final = share.timing.look
        self._object = object_of(name)
        self._objects, self._share = objects, share
        self._lock = Lock()  # of the share; never held during a request
        self._due = Event()
        self._thread: Thread | None = None
        self._on_news: Callable[[], object] = _ignore
        self._is_leaving = self._is_closed = False
        self._leave_until = 0.0
        self._is_fast = False  # whether the thread looks soon in any case
        self._failing_since: float | None = None
        self._is_write_failing = False  # and not only reading
        self._waiting_since: float | None = None
        self._trouble = ""

    def __repr__(self) -> str:
        return f"<SharedLimit {self.name}: {self._share!r}>"

    def watch(self, on_news: Callable[[], object]) -> None:
        """Call `on_news`, in another thread, when the engine has got something."""
        self._on_news = on_news

    def bounds(self) -> Bounds:
        """The bounds that were set when the object was last read or written."""
        return self._share.state.bounds

    # --- what the event loop asks and tells ---

    def take_below(self, at_once: int, taken: Collection[int]) -> int | None:  # noqa: ARG002 - the share knows which places are taken
        """Take one of the engine's places below `at_once`; None if none is free.

        Raises:
            LimitError: The store has not answered for long.
        """
        with self._lock:
            place = self._share.take(at_once, time.monotonic(), _awake())
        if place is None:
            self._check_usable()
        return place

    def _check_usable(self) -> None:
        """Raise an error if tasks have waited, and requests have failed, for too long."""
        since = self._failing_since
        if since is None or self._waiting_since is None or self._share.is_lost:
            return
        if _awake() - max(since, self._waiting_since) >= self._share.timing.patience:
            raise LimitError(f"the limit {self.name!r} cannot be used: {self._trouble}")

    def free_place(self, number: int, *, unused: bool = False) -> None:
        """Give a place back: to the engine's next task, or to others."""
        with self._lock:
            is_for_others = self._share.give_back(number, time.monotonic(), unused=unused)
        if is_for_others:
            self._due.set()

    def keep_only(self, places: Collection[int], ticket: int | None) -> None:
        """Give back all places but these: to the engine's next tasks, or to others."""
        del ticket
        with self._lock:
            others = self._share.uses - set(places)
        for place in others:
            self.free_place(place, unused=True)

    def lost(self) -> LimitError | None:
        """Why other engines may have the places that this engine's tasks use; else None."""
        with self._lock:
            share = self._share
            if share.places_in_use and not share.is_lost and not share.is_alive(_awake()):
                share.lose()
            if not share.is_lost:
                return None
        reason = f" ({self._trouble})" if self._trouble else ""
        message = (
            f"this engine could not renew its places of the limit {self.name!r} in time{reason}, "
            "so other engines may use them: the run ends, and can be resumed"
        )
        return LimitError(message)

    def join_line(self) -> int:
        """Does nothing: `expect` tells how many tasks wait."""
        return 0

    def leave_line(self, ticket: int) -> None:
        """Does nothing, likewise."""

    def is_preceded(self, ticket: int | None) -> bool:  # noqa: ARG002 - shares take the place of tickets
        """False: what the engine has is its own."""
        return False

    def expect(self, run: int, at_once: int, ready: int) -> None:
        """So many tasks of a run wait for a place below `at_once`; 0 if none waits any more."""
        with self._lock:
            self._share.expect(run, at_once, ready)
            if not self._share.is_anybody_waiting:
                self._waiting_since = None
            elif self._waiting_since is None:
                self._waiting_since = _awake()
        if ready and not self._is_fast:
            self._wake()

    def let_others(self, run: int) -> None:
        """Tasks of a run wait for another limit: others may have what no task of this engine has.

        Else they would wait for it until the next renewal.
        """
        self.expect(run, 0, 0)
        with self._lock:
            share = self._share
            share.gives_idle = len(share.has[0]) > share.places_in_use
        if share.gives_idle:
            self._due.set()

    def begin_one(self, per_second: float, slack: float, now: float) -> float:  # noqa: ARG002 - a rate here is kept by its own clock
        """Count one start now, and return 0; or return how many seconds it has to wait.

        Raises:
            LimitError: The store has not answered for long.
        """
        with self._lock:
            seconds = self._share.begin_one(per_second, slack, time.monotonic(), _awake())
        if seconds:
            self._check_usable()
        if seconds and not self._is_fast:
            self._wake()
        return seconds

    def undo_one(self, per_second: float) -> None:
        """Take back a start that was counted but did not happen."""
        with self._lock:
            self._share.undo_one(per_second)

    def hasten(self, per_second: float, now: float) -> None:  # noqa: ARG002 - a rate here is kept by its own clock
        """The rate was changed: the next start comes no later than this one says."""
        with self._lock:
            self._share.rate.hasten(per_second, time.monotonic())

    def in_use(self) -> int:
        """How many places other engines have, as far as they have said."""
        return sum(entry.in_use for _, entry in self._share.state.others(self._share.engine))

    # --- the end ---

    def leave(self, *, wait: bool = True) -> None:
        """Take the engine's entry out. No task under the limit runs any more.

        Return when that is done, or cannot be done within 5 s of the first call; or, without
        `wait`, when it has begun. If the store does not answer, other engines take the entry out
        later.
        """
        if not self._is_leaving:
            self._is_leaving, self._leave_until = True, time.monotonic() + _LEAVING_SECONDS
            self._due.set()
        if not wait:
            return
        if self._thread is not None:
            self._thread.join(max(0.0, self._leave_until - time.monotonic()))
        self.close()

    def close(self) -> None:
        """Make no further request. Does not wait."""
        self._is_closed = True
        self._due.set()

    # --- the thread ---

    def _wake(self) -> None:
        self._is_fast = True
        self._due.set()
        if self._thread is None and not self._is_closed:
            # A daemon: an engine that is never closed does not keep the interpreter from ending.
            thread = Thread(target=self._work, name=f"asyncflow-limit-{self.name}", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                raise LimitError(str(no_thread(error))) from None
            self._thread = thread

    def _work(self) -> None:
        """Make requests until the engine has left. No error ends it: runs would wait for ever."""
        while True:
            try:
                return self._make_requests()
            except Exception as error:  # noqa: BLE001 - whatever it is, it counts as a failed request
                self._note_failure(f"{type(error).__name__}: {error}", is_write=True)
            with self._lock:
                self._share.on_unknown()
            self._due.wait(_LONGEST_PAUSE_SECONDS)

    def _make_requests(self) -> None:
        pause = _FIRST_PAUSE_SECONDS
        while not self._is_closed:
            self._due.clear()
            with self._lock:
                request = self._share.next_request(
                    time.monotonic(), _awake(), leave=self._is_leaving
                )
            if request is None:
                if self._is_leaving and not self._share.may_be_in:
                    return
                self._failing_since, self._is_write_failing = None, False  # nothing is tried now
                self._sleep()
                continue
            before = self._what_it_has()
            if self._carry_out(request):
                pause = _FIRST_PAUSE_SECONDS
                self._due.wait(_PAUSE_SECONDS) if self._is_leaving else time.sleep(_PAUSE_SECONDS)
            else:
                time.sleep(uniform(pause / 2, pause))  # noqa: S311 - no secret: engines should not ask all at once
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
            if self._what_it_has() != before:
                self._on_news()

    def _what_it_has(self) -> object:
        """What makes it worth while for a run that waits to try again."""
        share = self._share
        return share.has, share.state.bounds, share.is_lost

    def _sleep(self) -> None:
        """Wait until something is due, or somebody wakes the thread."""
        now = time.monotonic()
        with self._lock:
            self._is_fast = self._share.is_busy(now)
            seconds = self._share.seconds_until_due(now)
        # A wait of some hours would do, but no lock may be waited for without an end.
        longest = self._share.timing.idle
        self._due.wait(min(seconds, longest) * uniform(0.9, 1.0))  # noqa: S311 - no secret: engines should not ask all at once

    def _carry_out(self, request: Look | LimitState) -> bool:
        """Make a request, once; False if it failed or was refused, or nobody knows."""
        try:
            if isinstance(request, Look):
                return self._look()
            return self._replace(request)
        except (OSError, LimitError) as error:
            why = reason_of(error) if isinstance(error, OSError) else str(error)
            self._note_failure(why, is_write=isinstance(request, LimitState))
            with self._lock:
                self._share.on_unknown()
            return False

    def _look(self) -> bool:
        state, version, modified = _read(self._objects, self.name)
        with self._lock:
            self._share.on_seen(state, version, modified, time.monotonic())
        if not self._is_write_failing:
            self._failing_since = None
        return True

    def _replace(self, request: LimitState) -> bool:
        sent, version = _awake(), self._share.version or ""
        reached("limit.replace")
        written = _write(self._objects, self._object, request, version)
        reached("limit.replaced")
        with self._lock:
            if written is None:
                self._share.on_unknown()
            else:
                self._share.on_written(request, written, sent, time.monotonic())
                self._failing_since, self._is_write_failing, self._trouble = None, False, ""
        return written is not None

    def _note_failure(self, why: str, *, is_write: bool) -> None:
        if self._failing_since is None:
            self._failing_since = _awake()
            log.info(f"the limit {self.name} cannot be renewed now", why=why)
        self._is_write_failing = self._is_write_failing or is_write
        self._trouble = why


def _read(objects: Objects, name: str) -> tuple[LimitState, str, float]:
    """A limit's newest version, its e_tag, and when it was written; the e_tag is empty for none."""
    state, e_tag, modified = _read_any(objects, name)
    if state is None:
        raise damaged(name)
    return state, e_tag, modified


def _read_any(objects: Objects, name: str) -> tuple[LimitState | None, str, float]:
    """The same, without a state if the limit is damaged."""
    try:
        data, facts = objects.get_with_facts(object_of(name), most_bytes=MOST_BYTES)
    except FileNotFoundError:
        return LimitState(), "", 0.0
    return unpack_whole(data, name), facts.e_tag, facts.modified


def _write(objects: Objects, name: str, state: LimitState, version: str) -> str | None:
    """Write over exactly that version; the new one's e_tag, or None if there is another one."""
    if version:
        return objects.replace(name, pack(state), version)
    return objects.create_version(name, pack(state))


def _unusable(name: str, error: OSError) -> LimitError:
    return LimitError(f"cannot use the limit {name!r}: {reason_of(error)}")


def _ignore() -> None:
    """Nobody wants to know."""
