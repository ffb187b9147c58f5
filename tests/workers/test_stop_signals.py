"""SIGTERM that comes when a `def` step has ended and its report is not sent yet."""

from __future__ import annotations

import os
import signal
from contextlib import suppress

import pytest

from asyncflow.workers.process.stop_signals import Moment, StopOrder, StopSignals


class Stopped(Exception):
    """What the handler of a step raises."""


@pytest.fixture
def signals():
    """The handlers of a worker that its engine has asked to end, for SIGTERM alone."""
    told = StopOrder()
    told.note_order(is_late=False)
    signals = StopSignals(Moment(), told)
    before = signal.signal(signal.SIGTERM, signals._handler)
    yield signals
    with suppress(SystemExit, Stopped):
        signals.release()
    signal.signal(signal.SIGTERM, before)


def raising(*_: object) -> None:
    """Be a handler that a step has installed."""
    raise Stopped


def test_it_ends_the_process_when_the_report_is_sent(signals):
    """Not before: what the step has done would be lost."""
    signals.hold()
    os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(SystemExit):
        signals.release()


def test_if_none_came_nothing_happens(signals):
    """And the next one ends the process at once."""
    signals.hold()
    signals.release()
    signals.release()
    with pytest.raises(SystemExit):
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_handler_of_the_step_is_called_then_too(signals):
    """It is there until the next task begins, and knows nothing of reports."""
    signal.signal(signal.SIGTERM, raising)
    signals.hold()
    signal.raise_signal(signal.SIGTERM)  # to this thread: another one does not block it
    with pytest.raises(Stopped):
        signals.release()
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, []) & {signal.SIGTERM}


def test_one_that_is_blocked_and_held_comes_once_both_are_over(signals):
    """A step may have put our handler back while its failure was being stored."""
    ours = signal.signal(signal.SIGTERM, raising)
    signals.hold()
    signal.signal(signal.SIGTERM, ours)
    signals.hold()
    signal.raise_signal(signal.SIGTERM)  # to this thread: another one does not block it
    with pytest.raises(SystemExit):
        signals.release()
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, []) & {signal.SIGTERM}
