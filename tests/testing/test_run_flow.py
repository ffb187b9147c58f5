"""`run_flow`: a whole flow in the test's own process."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import random
import signal
import sys
import threading
import time
import warnings
from contextlib import suppress
from pathlib import Path
from unittest.mock import Mock

import pytest

from asyncflow import FlowSpec, Parameter, Run, catch, current, isolate, parallel, retry, step
from asyncflow.errors import NotFoundError, ParameterError, RunFailedError
from asyncflow.testing import run_flow
from asyncflow.testing.retry_clock import RetryClock
from asyncflow.testing.whole_flow import RunAs, carry_out
from tests.support.leftovers import open_descriptors, running_threads


def fetch():
    """What a test replaces."""
    raise ConnectionError


class Whole(FlowSpec):
    """Keeps where each of its steps has run."""

    scale = Parameter("scale", default=1)

    @step
    def start(self):
        os.environ["WHOLE_LEFT"] = "behind"
        self.ran = [(os.getpid(), threading.get_ident())]
        self.rows = fetch()
        print("fetched", len(self.rows))
        self.next(self.each, foreach="rows")

    @step
    async def each(self):
        await asyncio.sleep(0)
        print("no", self.input, file=sys.stderr)
        self.ran.append((os.getpid(), threading.get_ident()))
        self.value = self.input * self.scale
        self.next(self.join)

    @isolate
    @step
    def join(self, inputs):
        self.values = [each.value for each in inputs]
        self.ran = [each for one in inputs for each in one.ran]
        self.left = os.environ.get("WHOLE_LEFT")
        self.next(self.end)

    @step
    def end(self):
        self.pathspec = current.pathspec


class Gang(FlowSpec):
    """Whose nodes wait for each other."""

    @step
    def start(self):
        self.next(self.node, num_parallel=2)

    @parallel
    @step
    def node(self):
        barrier.wait()
        self.index_seen = current.parallel.node_index
        self.next(self.join)

    @step
    def join(self, inputs):
        self.seen = [each.index_seen for each in inputs]
        self.next(self.end)

    @step
    def end(self):
        pass


barrier = threading.Barrier(2, timeout=60)


class Shaky(FlowSpec):
    """Fails at first."""

    @step
    def start(self):
        self.items = [1, 2]
        self.next(self.work)

    @retry(times=2, minutes_between_retries=60)
    @step
    def work(self):
        self.answer = fetch()
        self.next(self.end)

    @step
    def end(self):
        pass


@pytest.fixture(autouse=True)
def fetched(monkeypatch):
    """The function in the place of `fetch`."""
    mock = Mock(return_value=[1, 2, 3])
    monkeypatch.setattr(f"{__name__}.fetch", mock)
    return mock


def test_every_step_runs_in_the_tests_own_thread(fetched, capsys):
    """With what the test has replaced, and with captured output, which is in the logs as well."""
    run = run_flow(Whole, scale=2)
    assert isinstance(run, Run)
    assert run.successful
    assert run.data.values == [2, 4, 6]
    assert set(run.data.ran) == {(os.getpid(), threading.get_ident())}
    fetched.assert_called_once_with()
    assert capsys.readouterr() == ("fetched 3\n", "no 1\nno 2\nno 3\n")
    assert run["start"].task.stdout == "fetched 3\n"
    assert sorted(task.stderr for task in run["each"]) == ["no 1\n", "no 2\n", "no 3\n"]


def test_what_a_step_does_to_the_environment_ends_with_its_task():
    """And with the run."""
    run = run_flow(Whole)
    assert run.data.left is None
    assert "WHOLE_LEFT" not in os.environ
    assert Path(str(run.store)).exists()


async def test_a_loop_may_be_running():
    """Then the steps have another thread."""
    ran = run_flow(Whole).data.ran
    assert {pid for pid, _ in ran} == {os.getpid()}
    assert threading.get_ident() not in {thread for _, thread in ran}


def test_a_failure_has_what_the_step_raised_as_its_cause(fetched):
    """So that the test shows the step's own frames."""
    fetched.side_effect = KeyError("gone")
    with pytest.raises(RunFailedError, match="gone") as raised:
        run_flow(Whole)
    assert raised.value.__cause__ is fetched.side_effect
    assert raised.value.run["start"].task.exception.type == "KeyError"


def test_ctrl_c_ends_the_test_and_not_only_the_step(fetched):
    """It is not for the step alone."""
    fetched.side_effect = KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        run_flow(Whole)


def test_the_nodes_of_a_gang_run_at_the_same_time():
    """Each in a thread of its own."""
    assert run_flow(Gang).data.seen == [0, 1]


def test_waits_before_a_retry_are_skipped(fetched):
    """And told."""
    fetched.side_effect = [OSError, OSError, 42]
    clock = RetryClock()
    run = carry_out(Shaky, RunAs(clock=clock), {})
    assert run["work"].task.data.answer == 42
    assert run["work"].task.current_attempt == 2
    assert clock.waits == [3600.0, 3600.0]


def test_a_run_that_is_broken_off_is_interrupted_and_can_be_resumed(fetched, tmp_path):
    """Nothing after the step has begun."""
    crashed = carry_out(Whole, RunAs(crash_after="start", store=tmp_path / "store"), {"scale": 5})
    assert (crashed.status, len(list(crashed["start"]))) == ("interrupted", 1)
    assert [each.id for each in crashed] == ["start"]
    run = run_flow(Whole, resume=crashed, store=tmp_path / "store")
    assert (run.data.values, fetched.call_count) == ([5, 10, 15], 1)
    with pytest.raises(NotFoundError, match="no step 'strat'"):
        carry_out(Whole, RunAs(crash_after="strat"), {})


def test_workers_are_used_on_request(tmp_path):
    """Which know nothing of what the test has replaced."""
    with pytest.raises(RunFailedError, match="ConnectionError"):
        run_flow(Whole, in_process=False, store=tmp_path / "store")


def test_what_cannot_be_started_is_an_error():
    """As from an engine."""
    with pytest.raises(ParameterError, match="scael"):
        run_flow(Whole, scael=1)


def test_nothing_is_left_open():
    """Neither threads nor descriptors."""
    run_flow(Whole)
    descriptors, threads = open_descriptors(), running_threads()
    run_flow(Whole)
    assert open_descriptors() - descriptors == set()
    assert running_threads() - threads == set()


def state_of_process():
    """What a process has once, so that a run in a test's process could leave it changed."""
    return {
        "blocked signals": signal.pthread_sigmask(signal.SIG_BLOCK, []),
        "handlers": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "hooks": (sys.excepthook, sys.unraisablehook, sys.displayhook, sys.breakpointhook),
        "threads": (threading.excepthook, threading.Thread.start, threading.Thread.run),
        "streams": (sys.stdin, sys.stdout, sys.stderr),
        "imports": (list(sys.meta_path), list(sys.path_hooks), list(sys.path)),
        "records": (logging.Logger.makeRecord, logging.getLogRecordFactory()),
        "warnings": (list(warnings.filters), warnings.showwarning),
        "environment": dict(os.environ),
        "folder": Path.cwd(),
        "collection": (gc.isenabled(), gc.get_threshold()),
        "recursion": sys.getrecursionlimit(),
        "random": random.getstate(),
    }


class Ending(FlowSpec):
    """Two steps, each of which ends in the way that is named for it."""

    plain = Parameter("plain", default="")
    waiting = Parameter("waiting", default="")

    @catch(var="caught")
    @step
    def start(self):
        end_by(self.plain)
        self.next(self.end)

    @step
    async def end(self):
        await asyncio.sleep(0)
        end_by(self.waiting)


def end_by(name):
    """Raise what is named."""
    if name:
        raise {"error": ValueError, "exit": SystemExit, "memory": MemoryError}[name]


@pytest.mark.parametrize(
    "ways",
    [{}, *({kind: way} for kind in ("plain", "waiting") for way in ("error", "exit", "memory"))],
)
def test_the_process_is_as_it_was(ways):
    """However the steps end; a test that follows must not notice."""
    before, frozen = state_of_process(), gc.get_freeze_count()
    with suppress(RunFailedError):
        run_flow(Ending, **ways)
    assert state_of_process() == before
    assert gc.get_freeze_count() <= frozen  # fewer, once something that was frozen before is gone


class Breaking(FlowSpec):
    """A gang, one of whose nodes fails while the others are at work, which no thread can stop."""

    @step
    def start(self):
        self.next(self.node, num_parallel=3)

    @retry(times=1, seconds=0)
    @parallel
    @step
    def node(self):
        if current.attempt == 0:
            if current.parallel.node_index == 2:
                raise ConnectionError("the last")
            time.sleep(0.01)
        self.next(self.met)

    @step
    def met(self, inputs):
        self.attempts = [current.attempt for _ in inputs]
        self.next(self.end)

    @step
    def end(self):
        pass


def test_workers_whose_tasks_were_asked_to_stop_make_room_for_others():
    """Each ends after its task, and another one comes: the gang is run again."""
    assert len(run_flow(Breaking).data.attempts) == 3
