"""What the command line makes of signals: the first one, the same again, and a second one."""

from __future__ import annotations

import os
import signal

import anyio
import pytest

from asyncflow.cli.interrupts import interrupts


@pytest.fixture
def handlers():
    """Puts back the handlers of this process."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [(number, signal.getsignal(number)) for number in numbers]
    yield
    for number, handler in before:
        signal.signal(number, handler)


async def test_two_signals_in_a_moment_are_one_and_a_later_one_ends_the_process(
    handlers, monkeypatch
):
    """`timeout` sends its signal to a command, and then to the group that it is in."""
    now = [100.0]
    said: list[str] = []
    ended: list[tuple[int, int]] = []
    monkeypatch.setattr("asyncflow.cli.interrupts.monotonic", lambda: now[0])
    with interrupts(said.append, lambda: said.append("second")) as listening:
        signal.raise_signal(signal.SIGTERM)
        while not said:
            await anyio.lowlevel.checkpoint()
        assert (said, listening.received) == (["SIGTERM"], signal.SIGTERM)
        now[0] += 0.1
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        assert said == ["SIGTERM"]
        now[0] += 1
        monkeypatch.setattr("asyncflow.cli.interrupts.os.kill", lambda *told: ended.append(told))
        signal.raise_signal(signal.SIGTERM)
    assert said == ["SIGTERM", "second"]
    assert ended == [(os.getpid(), signal.SIGTERM)]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
