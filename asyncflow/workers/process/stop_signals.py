"""What a worker does with a signal that asks a process to end: SIGTERM, SIGINT or SIGHUP.

The engine ends a step with SIGTERM. But whoever ends a whole program often sends a signal to each
of its processes, as systemd does, and then it is for the engine's process to say what becomes of
the run. So a worker has three cases to tell apart, and a signal does not say who has sent it:

    the engine's      the fork server notes it for the worker, and sends it then
    to all            the fork server gets it as well, and notes that
    to this worker    neither of the two is noted within a moment

What is noted lies in memory that the fork server shares with its workers. A step that has handlers
of its own keeps them, and what a step starts has the signals' defaults.
"""

from __future__ import annotations

import mmap
import os
import signal
import struct
import sys
import time
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

STOP_SIGNALS: Final = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})

_TIME: Final = struct.Struct("d")
_TURN_SECONDS: Final = 0.002
_ALONE_SECONDS: Final = 1.0  # after so long, nobody else has got the signal
_SAME_SECONDS: Final = 2.0  # a signal that comes again so soon is the same: `timeout` sends two
_OWN_SECONDS: Final = 0.5  # the same for what a handler of a step has got
_DECISION_SECONDS: Final = 2.0  # a command line that was sent the same cancels the run far sooner


class Moment:
    """A point in time that one process notes, and those that it has forked see."""

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, mmap.PAGESIZE)

    def note(self, *_: object) -> None:
        """It is now; fit for a signal handler."""
        _TIME.pack_into(self._page, 0, time.monotonic())

    @property
    def at(self) -> float:
        """In seconds of the monotonic clock, which all processes share; 0 for never."""
        at: float
        (at,) = _TIME.unpack_from(self._page, 0)
        return at

    def is_within(self, seconds: float) -> bool:
        """Whether it was noted, and no longer ago."""
        at = self.at
        return bool(at) and time.monotonic() - at < seconds


def note_stop_signals(moment: Moment) -> None:
    """Have this process go on when it is asked to end, and note when that was."""
    for number in STOP_SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, moment.note)


class StopSignals:
    """The handlers of a worker."""

    def __init__(self, to_all: Moment, told: Moment) -> None:
        """Install nothing yet.

        Args:
            to_all: When all processes were last sent a signal.
            told: When the engine has asked this worker to end.
        """
        self.on_loop = False
        """Whether the event loop of async steps runs, into which no exception may break."""
        self._to_all, self._told = to_all, told
        self._seen = to_all.at
        self._handler = self._receive  # one object, to be told from handlers of steps

    def install(self) -> None:
        """Listen from now on, and let come what was blocked."""
        for number in STOP_SIGNALS:
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._handler)
        os.register_at_fork(after_in_child=self._restore_defaults)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)

    @property
    def asked(self) -> bool:
        """Whether the engine has asked this worker to end."""
        return bool(self._told.at)

    def _restore_defaults(self) -> None:
        """What a step has forked ends like any process, unless the step said otherwise."""
        for number in STOP_SIGNALS:
            if signal.getsignal(number) is self._handler:
                by_default = signal.default_int_handler if number == signal.SIGINT else None
                signal.signal(number, by_default or signal.SIG_DFL)

    def _receive(self, number: int, _: FrameType | None) -> None:
        if not self._is_for_engine(number):
            self._end(number)

    def _is_for_engine(self, number: int) -> bool:
        """Whether it is the engine that acts on it; waits until that can be told."""
        until = time.monotonic() + _ALONE_SECONDS
        while not self._told.at:
            noted = self._to_all.at
            if noted > self._seen or self._to_all.is_within(_SAME_SECONDS):
                self._seen = noted
                return True
            if time.monotonic() > until:
                return False
            time.sleep(_TURN_SECONDS)
        return number != signal.SIGTERM  # the engine has acted: its own signal is this, or comes

    def _end(self, number: int) -> None:
        """End the step that runs, so that what it has open is closed; or this process."""
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        if number == signal.SIGTERM and not self.on_loop:
            sys.exit(128 + number)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    # --- a step that fails because of the same signal -------------------------------------------

    def outlast(self, error: BaseException) -> BaseException:
        """What a `def` step has failed by: `error`, or the engine's word if that comes now.

        By a signal to all, what the step had started may have ended, and the step with it, before
        the engine says that the run is to be cancelled.
        """
        try:
            for seconds in self._pauses():
                time.sleep(seconds)
        except BaseException as stop:  # noqa: BLE001 - whatever a handler of the step makes of it
            return stop
        return error

    async def outlast_on_loop(self, error: BaseException) -> BaseException:
        """The same for an async step."""
        import asyncio

        try:
            for seconds in self._pauses():
                await asyncio.sleep(seconds)
        except BaseException as stop:  # noqa: BLE001 - it is told instead
            return stop
        return error

    def _pauses(self) -> Iterator[float]:
        """How long to wait for the engine's word, bit by bit; mostly not at all."""
        until = time.monotonic() + (_OWN_SECONDS if self._has_own_handler() else 0.0)
        while not self._to_all.is_within(_DECISION_SECONDS):
            if time.monotonic() >= until:
                return
            yield _TURN_SECONDS
        yield max(0.0, self._to_all.at + _DECISION_SECONDS - time.monotonic())

    def _has_own_handler(self) -> bool:
        """Whether a step listens itself: then a signal may have come, and nobody here knows it."""
        handlers = map(signal.getsignal, STOP_SIGNALS)
        return any(callable(each) and each is not self._handler for each in handlers)


def block_stop_signals() -> Any:
    """Have them wait, in this thread and in what it starts; the mask to go back to."""
    return signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
