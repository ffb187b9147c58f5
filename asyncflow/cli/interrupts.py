"""Ctrl-C and SIGTERM at the command line: the first one cancels the run, the second one kills."""

from __future__ import annotations

import asyncio
import signal
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_NUMBERS: Final = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)


@dataclass(slots=True)
class Interrupts:
    """What has come so far, and what the first one does."""

    on_first: Callable[[str], None]
    """Called once, with the signal's name."""
    received: int = 0
    """The number of the first signal; 0 for none."""

    def receive(self, number: int) -> None:
        """Take the first signal; from now on the next one ends this process at once."""
        self.received = number
        release()
        for each in _NUMBERS:
            if signal.getsignal(each) is not signal.SIG_IGN:
                signal.signal(each, signal.SIG_DFL)
        self.on_first(signal.Signals(number).name)


@contextmanager
def interrupts(on_first: Callable[[str], None]) -> Iterator[Interrupts]:
    """Listen within the block, on the running event loop.

    A signal that this process was started to ignore (`nohup`, a background job) stays ignored.
    """
    listening = Interrupts(on_first)
    loop = asyncio.get_running_loop()
    for number in _NUMBERS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            loop.add_signal_handler(number, listening.receive, number)
    try:
        yield listening
    finally:
        release()


def release() -> None:
    """Listen no more. Harmless when repeated."""
    loop = asyncio.get_running_loop()
    for number in _NUMBERS:
        loop.remove_signal_handler(number)
