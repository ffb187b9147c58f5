"""Nothing outlives its engine, and at the command line a signal leaves everything in order."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import contextmanager, suppress
from itertools import permutations

import psutil
import pytest

from asyncflow import Engine, Flow, events
from asyncflow.values import Status
from tests.support.flows import Sleeping

FAMILY = """
    import os, subprocess, sys, time
    from asyncflow import FlowSpec, step

    def daemon():
        # As daemons are made: fork, a session of its own, fork again.
        reading, writing = os.pipe()
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.write(writing, str(os.getpid()).encode())
                os.close(writing)
                time.sleep(600)
            sys.exit(0)
        os.close(writing)
        os.wait()
        return os.read(reading, 100).decode()

    class Family(FlowSpec):
        @step
        def start(self):
            pids = [str(os.getpid()), daemon(), str(subprocess.Popen(["sleep", "600"]).pid)]
            pids.append(str(subprocess.Popen(["sleep", "600"], start_new_session=True).pid))
            shell = ["sh", "-c", "setsid sleep 600 >/dev/null & echo $!"]
            pids.append(subprocess.run(shell, stdout=subprocess.PIPE).stdout.decode().strip())
            self.pids = list(map(int, pids))
            print("family", *pids, flush=True)
            time.sleep(float(os.environ.get("LASTS", "600")))
            self.next(self.end)

        @step
        def end(self):
            pass
"""


@contextmanager
def family(tmp_path, *options, **environ):
    """A run whose step has started processes in every way: the engine and all of them."""
    program = tmp_path / "family.py"
    program.write_text(textwrap.dedent(FAMILY))
    command = [sys.executable, "-m", "asyncflow", "run", str(program), "--workers=1", *options]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, **environ},
    ) as engine:
        try:
            assert engine.stdout is not None
            for line in engine.stdout:
                found = re.search(r"family ([\d ]+)", line)
                if found:
                    pids = [int(pid) for pid in found[1].split()]
                    break
            yield engine, list(alive(pids))
        finally:
            engine.kill()


def alive(pids):
    """Those of them that have not ended."""
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            yield psutil.Process(pid)


def gone(processes):
    """Whether all of them end."""
    return not psutil.wait_procs(processes, timeout=180)[1]


@pytest.mark.parametrize("stopped", [False, True])
def test_after_kill_9_of_the_engine_not_even_daemons_are_left(store, tmp_path, stopped):
    """Grandchildren, in sessions of their own too; with the worker under SIGSTOP as well."""
    with family(tmp_path) as (engine, processes):
        if stopped:
            processes[0].suspend()
        engine.kill()
        assert gone(processes)
    assert Flow("Family").latest_run.status is Status.INTERRUPTED


@pytest.mark.parametrize(
    "order", list(permutations(["engine", "template", "worker"])), ids="-".join
)
def test_after_kill_9_of_all_in_any_order_not_even_daemons_are_left(store, tmp_path, order):
    """The engine, the process that starts workers and a worker, at once or one by one."""
    for pause in (0.0, 0.2):
        with family(tmp_path) as (engine, processes):
            (reaper,) = psutil.Process(engine.pid).children()
            (template,) = reaper.children()
            victims = {"engine": engine, "template": template, "worker": processes[0]}
            for name in order:
                with suppress(psutil.NoSuchProcess):  # it has ended by the one before
                    victims[name].kill()
                time.sleep(pause)
            assert gone([*processes, reaper, template])


@pytest.mark.parametrize("killed", ["reaper", "template"])
def test_while_the_engine_goes_on_no_daemon_outlives_who_started_its_worker(
    store, tmp_path, killed
):
    """The process that starts workers, or the one that watches it, is killed: the run fails."""
    with family(tmp_path) as (engine, processes):
        (reaper,) = psutil.Process(engine.pid).children()
        (reaper if killed == "reaper" else reaper.children()[0]).kill()
        assert gone(processes)
        engine.communicate(timeout=180)
    assert Flow("Family").latest_run.status is Status.FAILED


def test_after_a_run_that_succeeds_no_daemon_of_a_step_is_left(store, tmp_path):
    """What a step leaves behind ends with its engine."""
    with family(tmp_path, LASTS="0") as (engine, processes):
        assert engine.wait(timeout=180) == 0
        assert gone(processes)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_after_a_signal_no_daemon_is_left_and_the_journal_says_cancelled(store, tmp_path, number):
    """The exit status is 128 and the signal's number, and the resume's command is told."""
    with family(tmp_path) as (engine, processes):
        engine.send_signal(number)
        out, err = engine.communicate(timeout=180)
        assert gone(processes)
    assert engine.returncode == 128 + number
    assert f"Workflow cancelled: {signal.Signals(number).name}." in out
    run = Flow("Family").latest_run
    assert f"family.py --origin-run-id {run.id}" in err
    assert run.status is Status.CANCELLED


STUBBORN = """
    import signal, time
    from asyncflow import FlowSpec, step

    class Stubborn(FlowSpec):
        @step
        def start(self):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            print("at work", flush=True)
            time.sleep(600)
            self.next(self.end)

        @step
        def end(self):
            pass
"""


@pytest.fixture
def stubborn(store, tmp_path):
    """A started run whose step ignores SIGTERM, by its command's options."""
    program = tmp_path / "stubborn.py"
    program.write_text(textwrap.dedent(STUBBORN))
    started = []

    def start(*options, **environ):
        command = [sys.executable, "-m", "asyncflow", "run", str(program), *options]
        engine = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **environ},
        )
        started.append(engine)
        assert engine.stdout is not None
        for line in engine.stdout:
            if "at work" in line:
                break
        return engine

    yield start
    for engine in started:
        engine.kill()
        engine.communicate()


@pytest.mark.parametrize("by", ["option", "environment"])
def test_the_grace_of_a_step_that_ignores_sigterm_can_be_set(stubborn, by):
    """It is killed when that is over; the run is cancelled in all order."""
    began = time.monotonic()
    if by == "option":
        engine = stubborn("--grace", "0.3")
    else:
        engine = stubborn(ASYNCFLOW_GRACE_SECONDS="0.3")
    engine.send_signal(signal.SIGTERM)
    engine.communicate(timeout=180)
    assert engine.returncode == 143
    (run,) = Flow("Stubborn")
    (ended,) = [event for event in run.events() if isinstance(event, events.TaskFailed)]
    assert ended.exception_type == "asyncflow.errors.TaskCancelledError"
    assert run.status is Status.CANCELLED
    assert time.monotonic() - began < 30


def test_a_second_ctrl_c_kills_at_once_and_leaves_nothing(stubborn):
    """The run is interrupted then, and no process of it is left."""
    engine = stubborn("--grace", "600")
    children = psutil.Process(engine.pid).children(recursive=True)
    engine.send_signal(signal.SIGINT)
    assert engine.stderr is not None
    assert "a second one kills it" in engine.stderr.readline()
    while engine.poll() is None:  # two in a moment are one
        engine.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            engine.wait(timeout=0.05)
    assert engine.returncode == -signal.SIGINT
    assert gone(children)
    assert Flow("Stubborn").latest_run.status is Status.INTERRUPTED


FAILS = """
    import time
    from pathlib import Path
    from asyncflow import FlowSpec, step

    class Fails(FlowSpec):
        @step
        def start(self):
            self.next(self.bad, self.good)

        @step
        def bad(self):
            while not Path("began").exists():
                time.sleep(0.01)
            if not Path("never").exists():
                raise ValueError("first of all")
            self.next(self.join)

        @step
        def good(self):
            Path("began").touch()
            for _ in range(600):
                time.sleep(0.1)
                if Path("failed").exists():
                    break
            self.next(self.join)

        @step
        def join(self, inputs):
            self.next(self.end)

        @step
        def end(self):
            pass
"""


@pytest.mark.parametrize(
    ("options", "ending"), [((), "cancelled"), (("--on-failure", "finish"), "succeeded")]
)
def test_on_failure_says_what_becomes_of_running_siblings(
    store, tmp_path, monkeypatch, options, ending
):
    """They are stopped, or with `finish` come to their end; nothing new begins."""
    monkeypatch.chdir(tmp_path)
    text = textwrap.dedent(FAILS)
    (tmp_path / "fails.py").write_text(text)
    command = [sys.executable, "-m", "asyncflow", "run", "fails.py", "--workers=2", "--json"]
    with subprocess.Popen(
        [*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as engine:
        assert engine.stderr is not None
        for line in engine.stderr:
            if "ValueError: first of all" in line:
                (tmp_path / "failed").touch()
                break
        out, _ = engine.communicate(timeout=180)
    assert engine.returncode == 1
    told = json.loads(out)
    assert (told["failure"]["step"], told["failure"]["message"]) == ("bad", "first of all")
    (run,) = Flow("Fails")
    assert run["good"].task.status == ending
    assert not [event for event in run.events() if getattr(event, "step", "") == "join"]


def handlers():
    """What this process does about each signal."""
    return {number: signal.getsignal(number) for number in signal.valid_signals()}


async def test_an_engine_in_a_program_installs_no_signal_handler(store):
    """Neither while it is open, nor while a run goes on, nor afterwards."""
    before, descriptor = handlers(), signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(descriptor)
    async with Engine(store=store, workers=1) as engine:
        handle = await engine.start(Sleeping)
        async for event in handle.events():
            if isinstance(event, events.TaskLogged) and event.line == "sleeping":
                break
        assert handlers() == before
        assert signal.set_wakeup_fd(descriptor) == descriptor
    assert handlers() == before
