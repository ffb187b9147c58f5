"""Ctrl-C and SIGTERM at the command line: the first one cancels the run, the second one kills.

Two signals within a moment count as one: `timeout` sends its signal to a command, and then to the
command's process group.

Ctrl-Z also stops the run: workers are in process groups of their own, so the terminal's signals
reach only this process.
"""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING, Final

from asyncflow._quick_classes import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from asyncflow.engine.engine import Engine

_SAME_SECONDS: Final = 0.5  # nobody can read the screen and press Ctrl-C again so soon
_NUMBERS: Final = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)


@dataclass(slots=True)
class Interrupts:
    """The signals so far, and what the first one does."""

    on_first: Callable[[str], None]
    """Called once, with the signal's name."""
    on_second: Callable[[], None]
    """Called right before a second signal ends this process."""
    received: int = 0
    """The number of the first signal; 0 for none."""
    _at: float = 0.0

    def receive(self, number: int) -> None:
        """Handle the first signal; from now on the next one ends this process at once."""
        self.received, self._at = number, monotonic()
        release()
        for each in _NUMBERS:
            if signal.getsignal(each) is not signal.SIG_IGN:
                signal.signal(each, self._receive_again)  # the loop may be stuck
        self.on_first(signal.Signals(number).name)

    def _receive_again(self, number: int, _: object) -> None:
        if monotonic() - self._at < _SAME_SECONDS:
            return
        for each in _NUMBERS:  # a third one ends this process even if writing the last words blocks
            if signal.getsignal(each) is not signal.SIG_IGN:
                signal.signal(each, signal.SIG_DFL)
        try:
            self.on_second()
        finally:
            os.kill(os.getpid(), number)


@contextmanager
def interrupts(
    on_first: Callable[[str], None], on_second: Callable[[], None]
) -> Iterator[Interrupts]:
    """Handle signals within the block, on the running event loop.

    A signal that this process was started to ignore (`nohup`, a background job) stays ignored.
    """
    listening = Interrupts(on_first, on_second)
    loop = asyncio.get_running_loop()
    for number in _NUMBERS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            loop.add_signal_handler(number, listening.receive, number)
    try:
        yield listening
    finally:
        release()


def release() -> None:
    """Handle signals no more. Harmless when repeated."""
    loop = asyncio.get_running_loop()
    for number in _NUMBERS:
        loop.remove_signal_handler(number)


@contextmanager
def suspending(engine: Engine) -> Iterator[None]:
    """Within the block, Ctrl-Z also suspends the engine's workers, and `fg` resumes them."""
    loop = asyncio.get_running_loop()
    listens = signal.getsignal(signal.SIGTSTP) is signal.SIG_DFL
    if listens:
        loop.add_signal_handler(signal.SIGTSTP, _suspend, engine)
    try:
        yield
    finally:
        if listens:
            loop.remove_signal_handler(signal.SIGTSTP)


def _suspend(engine: Engine) -> None:
    with engine.suspended():
        os.kill(os.getpid(), signal.SIGSTOP)  # returns when somebody resumes this process
