"""Handles the signals that ask a worker to end: SIGTERM, SIGINT and SIGHUP.

The engine ends a step with SIGTERM. But a program is often ended by a signal to each of its
processes, as systemd does, and then the engine's process decides what happens to the run. A signal
does not say who sent it. So a worker tells three cases apart:

    from the engine   the fork server notes it for the worker, and sends it then
    to all            the fork server gets it as well, and notes that
    to this worker    neither of the two is noted within a moment

The notes are in memory that the fork server shares with its workers. A step that has handlers of
its own keeps them, and processes that a step starts have the signals' defaults.
"""

from __future__ import annotations

import mmap
import os
import signal
import struct
import sys
import time
from _signal import (  # type: ignore[import-not-found] # those of `signal` make enums for 0.7 µs
    getsignal,
    pthread_sigmask,
)
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

_HELD: Final = frozenset({signal.SIGTERM})
"""Waits while a worker knows of an end that it has not reported."""

STOP_SIGNALS: Final = _HELD | {signal.SIGINT, signal.SIGHUP}

_TIME: Final = struct.Struct("d")
_FLAG_AT: Final = _TIME.size
_TURN_SECONDS: Final = 0.002
_ALONE_SECONDS: Final = 1.0  # after this time, no other process has got the signal
# a signal that comes again this soon is the same one: `timeout` sends two
_SAME_SECONDS: Final = 2.0
_OWN_SECONDS: Final = 0.5  # the same for a signal that a handler of a step has got
_DECISION_SECONDS: Final = 2.0  # a command line that got the same signal cancels the run far sooner


class Moment:
    """A point in time that one process notes, and that processes forked from it can read."""

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, mmap.PAGESIZE)

    def note(self, *_: object) -> None:
        """Set it to now; may be called in a signal handler."""
        _TIME.pack_into(self._page, 0, time.monotonic())

    @property
    def at(self) -> float:
        """In seconds of the monotonic clock, which all processes share; 0 for never."""
        at: float
        (at,) = _TIME.unpack_from(self._page, 0)
        return at

    def is_within(self, seconds: float) -> bool:
        """Whether it was noted at most so many seconds ago."""
        at = self.at
        return bool(at) and time.monotonic() - at < seconds


class StopOrder(Moment):
    """When the engine last asked a worker to end its task, and whether its time was over."""

    def note_order(self, *, is_late: bool) -> None:
        """Set it to now."""
        self._page[_FLAG_AT] = is_late
        self.note()

    @property
    def is_late(self) -> bool:
        """Whether the task's time was over; else its run is ending."""
        return bool(self._page[_FLAG_AT])


def note_stop_signals(moment: Moment) -> None:
    """Ignore stop signals in this process, but note when one came."""
    for number in STOP_SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, moment.note)


class StopSignals:
    """The handlers of a worker."""

    def __init__(self, to_all: Moment, told: StopOrder) -> None:
        """Install nothing yet.

        Args:
            to_all: When all processes were last sent a signal.
            told: When the engine last asked this worker to end.
        """
        self.on_loop = False
        """Whether the event loop of async steps runs, which no exception may interrupt."""
        self._to_all, self._told = to_all, told
        self._seen = to_all.at
        self._held = self._blocked = False
        self._waiting = False  # whether SIGTERM came while it was held
        self._handler = self._receive  # one object, which can be told from a step's own handlers

    def install(self) -> None:
        """Install the handlers, and unblock the signals."""
        for number in STOP_SIGNALS:
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._handler)
        os.register_at_fork(after_in_child=self._restore_defaults)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)

    @property
    def asked(self) -> bool:
        """Whether the engine has asked this worker to end."""
        return bool(self._told.at)

    @property
    def is_late(self) -> bool:
        """Whether the engine has asked it because the time of its task was over."""
        return self._told.is_late

    def _restore_defaults(self) -> None:
        """Restore the defaults in a process that a step has forked, unless the step set others."""
        for number in STOP_SIGNALS:
            if signal.getsignal(number) is self._handler:
                by_default = signal.default_int_handler if number == signal.SIGINT else None
                signal.signal(number, by_default or signal.SIG_DFL)

    def hold(self) -> None:
        """Keep SIGTERM waiting until `release`.

        The handler keeps it: blocking it takes two system calls. A step's own handler cannot.
        """
        if getsignal(signal.SIGTERM) is self._handler:
            self._held = True
        else:
            self._blocked = True
            pthread_sigmask(signal.SIG_BLOCK, _HELD)

    def release(self) -> None:
        """Let SIGTERM come, and one that came meanwhile. Harmless if it is not held."""
        if not (self._held or self._blocked):
            return
        self._held = False  # first: from now on none is kept
        waiting, self._waiting = self._waiting, False
        if self._blocked:
            self._blocked = False
            pthread_sigmask(signal.SIG_UNBLOCK, _HELD)
        if waiting:
            signal.raise_signal(signal.SIGTERM)  # the handler runs in the main thread

    def _receive(self, number: int, _: FrameType | None) -> None:
        if self._held and number == signal.SIGTERM:
            self._waiting = True
        elif not self._is_for_engine(number):
            self._end(number)

    def _is_for_engine(self, number: int) -> bool:
        """Whether the engine handles the signal; waits until that is known."""
        until = time.monotonic() + _ALONE_SECONDS
        while not self._told.at:
            noted = self._to_all.at
            if noted > self._seen or self._to_all.is_within(_SAME_SECONDS):
                self._seen = noted
                return True
            if time.monotonic() > until:
                return False
            time.sleep(_TURN_SECONDS)
        # the engine has acted: its own signal is this one, or follows
        return number != signal.SIGTERM

    def _end(self, number: int) -> None:
        """End the running step, so that it can close what it has open; or end this process."""
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        if number == signal.SIGTERM and not self.on_loop:
            sys.exit(128 + number)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    # --- a step that fails because of the same signal -------------------------------------------

    def outlast(self, error: BaseException) -> BaseException:
        """Wait briefly for a stop order of the engine; if it comes, it is the cause, else `error`.

        A signal to all may have ended what the step had started, and so have made the step fail,
        before the engine cancels the run. SIGTERM is held from then on, until the failure is
        reported, as with `Worker.report_soon`.
        """
        try:
            for seconds in self._pauses():
                time.sleep(seconds)
        except BaseException as stop:  # noqa: BLE001 - a handler of the step may raise anything
            error = stop
        self.hold()
        return error

    async def outlast_on_loop(self, error: BaseException) -> BaseException:
        """The same for an async step."""
        import asyncio

        try:
            for seconds in self._pauses():
                await asyncio.sleep(seconds)
        except BaseException as stop:  # noqa: BLE001 - the stop order is the cause instead
            return stop
        return error

    def _pauses(self) -> Iterator[float]:
        """How long to wait for an order of the engine, bit by bit; usually not at all."""
        until = time.monotonic() + (_OWN_SECONDS if self._has_own_handler() else 0.0)
        while not self._to_all.is_within(_DECISION_SECONDS):
            if time.monotonic() >= until:
                return
            yield _TURN_SECONDS
        yield max(0.0, self._to_all.at + _DECISION_SECONDS - time.monotonic())

    def _has_own_handler(self) -> bool:
        """Whether a step has a handler of its own: then a signal may have come unnoticed here."""
        handlers = map(signal.getsignal, STOP_SIGNALS)
        return any(callable(each) and each is not self._handler for each in handlers)


def block_stop_signals() -> Any:
    """Block the stop signals in this thread and those it starts; return the former mask."""
    return signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
