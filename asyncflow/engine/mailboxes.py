"""Reads the mailboxes of an engine's runs, and does what other processes ask in them.

See `asyncflow.store.mailbox` for the files. One look in a thread reads those of all runs: for a run
that was sent nothing, it asks for the size of a file. The next look begins when the last one is
over, and some while later if that took long: a slow store delays messages, not the engine, and is
not asked all the time.
"""

from __future__ import annotations

import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final

from asyncflow._quick_classes import NamedTuple
from asyncflow._support import log
from asyncflow._support.commit_points import reached
from asyncflow.errors import RecordError
from asyncflow.store.mailbox import CANCEL, messages_in

if TYPE_CHECKING:
    import asyncio
    from concurrent.futures import Future

    from asyncflow._support.thread_pool import Threads
    from asyncflow.scheduling.run_driver import RunDriver
    from asyncflow.store.interface import StoredRun
    from asyncflow.store.mailbox import Message


_NEVER: Final = 1 << 62
"""The offset from which on a damaged mailbox is read: it is longer than any."""


_REST: Final = 20
"""How many times as long as a look takes nothing is looked at: each asks a store something."""


class _Found(NamedTuple):
    run: int
    messages: list[Message]
    upto: int


class Mailboxes:
    """The mailboxes of all runs of an engine."""

    def __init__(self, threads: Threads, loop: asyncio.AbstractEventLoop) -> None:
        """Read in these threads, and act on this event loop."""
        self._threads, self._loop = threads, loop
        self._drivers: dict[int, RunDriver] = {}
        self._read_upto: dict[int, int] = {}
        self._looking: Future[tuple[list[_Found], float]] | None = None
        self._rests_until = 0.0  # by the loop's clock

    def add(self, driver: RunDriver) -> None:
        """Read the mailbox of this run, too."""
        self._drivers[driver.number] = driver
        self._read_upto[driver.number] = 0

    def remove(self, number: int) -> None:
        """The run has ended: what is sent from now on is not read."""
        self._drivers.pop(number, None)
        self._read_upto.pop(number, None)

    def look(self) -> None:
        """Act on what the last look has found, and begin another one, if that is over."""
        self._act_on_found()
        if self._looking is None and self._drivers and self._loop.time() >= self._rests_until:
            wanted = [
                (number, driver.identity.stored, self._read_upto[number])
                for number, driver in self._drivers.items()
            ]
            self._looking = self._threads.submit(partial(_read, wanted))
            self._looking.add_done_callback(self._act_soon)

    def _act_soon(self, _: object) -> None:
        with suppress(RuntimeError):  # the program has closed the event loop
            self._loop.call_soon_threadsafe(self._act_on_found)

    def _act_on_found(self) -> None:
        looking = self._looking
        if looking is not None and looking.done():
            self._looking = None
            found, seconds = ([], 0.0) if looking.cancelled() else looking.result()
            self._rests_until = self._loop.time() + _REST * seconds
            for each in found:
                self._act(each)

    def _act(self, found: _Found) -> None:
        """Act on a run's messages, each once."""
        driver = self._drivers.get(found.run)
        if driver is None or self._read_upto[found.run] >= found.upto:
            return
        self._read_upto[found.run] = found.upto
        for message in found.messages:
            reached("mailbox.act")
            if message.kind == CANCEL:
                reason = message.arguments.get("reason", "")
                driver.cancel(f"by {message.by}" + (f": {reason}" if reason else ""))
            else:
                log.warning(
                    f"{driver.pathspec} was sent a message of a kind that this version does not "
                    f"know: {message.kind!r}, by {message.by}"
                )

    def __repr__(self) -> str:
        return f"<Mailboxes of {len(self._drivers)} runs>"


def _read(wanted: list[tuple[int, StoredRun, int]]) -> tuple[list[_Found], float]:
    """What is new in these mailboxes, each from an offset on, and how many seconds that took."""
    found, began = [], time.monotonic()
    for number, run, offset in wanted:
        try:
            messages, upto = messages_in(run, offset)
        except RecordError as error:
            log.warning(f"{error}; what is sent to the run from now on has no effect")
            messages, upto = [], _NEVER
        except OSError:  # perhaps it can be read the next time
            continue
        if upto > offset:
            found.append(_Found(number, messages, upto))
    return found, time.monotonic() - began
