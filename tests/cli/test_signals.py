"""What the command line makes of signals: the first one, the same again, and a second one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time

import anyio
import psutil
import pytest

from asyncflow.cli.signals import interrupts


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
    monkeypatch.setattr("asyncflow.cli.signals.monotonic", lambda: now[0])
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
        monkeypatch.setattr("asyncflow.cli.signals.os.kill", lambda *told: ended.append(told))
        signal.raise_signal(signal.SIGTERM)
    assert said == ["SIGTERM", "second"]
    assert ended == [(os.getpid(), signal.SIGTERM)]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


BEATS = """
    import pathlib, time
    from asyncflow import FlowSpec, step

    class Beats(FlowSpec):
        @step
        def start(self):
            while not pathlib.Path("enough").exists():
                with open("beats", "a") as beats:
                    beats.write("x")
                time.sleep(0.01)
            self.next(self.end)

        @step
        def end(self):
            pass
"""


@pytest.mark.parametrize("signals", [[signal.SIGTSTP], [signal.SIGTSTP] * 2])
def test_ctrl_z_stops_the_steps_with_the_command_and_fg_has_both_go_on(store, tmp_path, signals):
    """The whole group of the command gets the signal, as from a terminal; once, or again."""
    (tmp_path / "beats.py").write_text(textwrap.dedent(BEATS))
    beats = tmp_path / "beats"
    command = [sys.executable, "-m", "asyncflow", "run", "beats.py", "--quiet"]
    with subprocess.Popen(command, cwd=tmp_path, process_group=0) as engine:
        try:
            for number in signals:
                before = size(beats)
                while size(beats) < before + 3:
                    time.sleep(0.01)
                family = [psutil.Process(engine.pid), worker_of(engine.pid)]
                os.killpg(engine.pid, number)
                while {each.status() for each in family} != {psutil.STATUS_STOPPED}:
                    time.sleep(0.01)
                written = size(beats)
                time.sleep(0.3)
                assert size(beats) == written
                os.killpg(engine.pid, signal.SIGCONT)
            (tmp_path / "enough").touch()
            assert engine.wait(timeout=180) == 0
        finally:
            engine.kill()


def size(file):
    """How much was written to it."""
    return file.stat().st_size if file.exists() else 0


def worker_of(engine):
    """The only worker of an engine."""
    (reaper,) = psutil.Process(engine).children()
    (fork_server,) = reaper.children()
    (worker,) = fork_server.children()
    return worker
