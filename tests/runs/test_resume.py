"""Coming back to a run: what had finished is taken over, the rest is run."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from asyncflow import Engine, Flow, FlowSpec, Parameter, Run, current, events, retry, step
from asyncflow.errors import ParameterError, ResumeError, RunFailedError
from asyncflow.events.packing import pack_event
from asyncflow.scheduling.resume_preview import preview_resume
from asyncflow.store.frames import frame
from asyncflow.store.journal import HEADER, JournalReader
from asyncflow.store.layout import Layout
from asyncflow.store.maintenance.remove import remove
from asyncflow.values import Status
from tests.support.flows import Fails
from tests.support.store_files import begin_journal


class Repaired(FlowSpec):
    """Fails in some of its tasks until a file is there."""

    mended = Parameter("mended", required=True, type=str)
    width = Parameter("width", default=6)

    @step
    def start(self):
        self.items = list(range(self.width))
        self.array = bytearray(5000)
        self.next(self.work, foreach="items")

    @step
    def work(self):
        if self.input == self.width - 1 and not Path(self.mended).exists():
            raise ValueError
        self.square = self.input**2
        print(f"squared {self.input}")
        self.next(self.join)

    @step
    def join(self, inputs):
        self.total = sum(task.square for task in inputs)
        self.next(self.end)

    @step
    def end(self):
        pass


async def fail(engine, tmp_path, tags=()):
    """A failed run, and what mends it for the next one."""
    mended = tmp_path / "mended"
    with pytest.raises(RunFailedError) as caught:
        await engine.run(Repaired, mended=str(mended), tags=tags)
    mended.touch()
    return caught.value.run.id


async def test_finished_tasks_are_taken_over_and_the_rest_is_run(engine, tmp_path):
    """No task that had finished is started again, and the answer is right."""
    origin = await fail(engine, tmp_path)
    handle = await engine.start_resumed(Repaired, origin=origin)
    seen = [event async for event in handle.events()]
    run = await handle
    cloned = {event.key for event in seen if isinstance(event, events.TaskCloned)}
    started = {event.key for event in seen if isinstance(event, events.TaskStarted)}
    finished = {
        event.key
        for event in Run(f"Repaired/{origin}", store=engine.settings.store).events()
        if isinstance(event, events.TaskSucceeded)
    }
    assert cloned == finished
    assert not cloned & started
    assert run.data.total == sum(n * n for n in range(6))


async def test_a_resumed_run_keeps_the_tags_of_its_origin(engine, tmp_path):
    """Those that it is given as well come behind them."""
    origin = await fail(engine, tmp_path, tags=("nightly", "v2"))
    run = await engine.resume(Repaired, origin=origin, tags=("again", "v2"))
    assert run.user_tags == {"nightly", "v2", "again"}
    [started] = run.events(events.RunStarted)
    assert started.tags == ("nightly", "v2", "again")
    assert Run(f"Repaired/{origin}", store=engine.settings.store).resumed_as == (run.id,)


async def test_a_resumed_run_keeps_its_parameters_and_names_its_origin(engine, tmp_path):
    """Parameters are those of the origin, though nobody gave them again."""
    origin = await fail(engine, tmp_path)
    run = await engine.resume(Repaired, origin=origin)
    assert run.origin_run_id == origin
    assert run.data.mended == str(tmp_path / "mended")


async def test_artifacts_and_logs_of_a_taken_over_task_can_be_read(engine, tmp_path):
    """A cloned task looks like the one that it was taken from."""
    origin = await fail(engine, tmp_path)
    run = await engine.resume(Repaired, origin=origin)
    logs = {task.data.square: task.stdout for task in run["work"]}
    assert logs == {n * n: f"squared {n}\n" for n in range(6)}
    assert bytes(run["start"].task.data.array) == bytes(5000)


async def test_a_resume_of_a_resume_goes_on_from_there(engine, tmp_path):
    """What a resumed run has taken over can be taken over again."""
    origin = await fail(engine, tmp_path)
    second = await engine.resume(Repaired, origin=origin)
    third = await engine.resume(Repaired, origin=second.id, step="join")
    cloned = {e.step for e in third.events() if isinstance(e, events.TaskCloned)}
    assert third.data.total == second.data.total
    assert cloned == {"start", "work"}


async def test_a_named_step_and_all_that_follow_are_run_again(engine, tmp_path):
    """From `join` on everything is run, nothing before it."""
    origin = await fail(engine, tmp_path)
    done = await engine.resume(Repaired, origin=origin)
    again = await engine.resume(Repaired, origin=done.id, step="join")
    ran = {event.step for event in again.events() if isinstance(event, events.TaskStarted)}
    assert ran == {"join", "end"}


async def test_an_unknown_step_or_run_is_refused(engine, tmp_path):
    """The error says what there is."""
    origin = await fail(engine, tmp_path)
    with pytest.raises(ResumeError, match="start, work, join, end"):
        await engine.resume(Repaired, origin=origin, step="nowhere")
    with pytest.raises(ResumeError) as caught:
        await engine.resume(Repaired, origin="17")
    where = f"in the store {engine.settings.store}; its latest: {origin}"
    assert str(caught.value).startswith(f"flow {Repaired.__name__} has no run '17' {where}")


async def test_an_origin_is_named_in_any_way_that_names_a_run(engine, tmp_path):
    """By an id, as text or as a number, by a pathspec, as a run, and as a handle."""
    mended = tmp_path / "mended"
    handle = await engine.start(Repaired, mended=str(mended), width=2)
    with pytest.raises(RunFailedError) as caught:
        await handle
    mended.touch()
    run = caught.value.run
    for origin in (run.id, int(run.id), run.pathspec, run, handle):
        resumed = await engine.resume(Repaired, origin=origin)
        assert resumed.origin_run_id == run.id


@pytest.mark.parametrize("origin", ["", "/", "17/", "Repaired/", "a/b/c", True, 1.5, b"17", Flow])
async def test_what_names_no_run_is_no_origin(engine, origin):
    """Above all it does not stand for the latest run."""
    with pytest.raises(ResumeError, match="does not name a run of Repaired: give a run's id"):
        await engine.start_resumed(Repaired, origin=origin)


async def test_a_run_of_another_flow_or_store_is_no_origin(engine, tmp_path):
    """The error names both, so that one sees which of them was meant."""
    from tests.support.flows import Linear

    run = await engine.run(Linear)
    for origin in (run, run.pathspec):
        with pytest.raises(ResumeError) as caught:
            await engine.resume(Repaired, origin=origin)
        said = f"{run.pathspec} is a run of Linear, not of Repaired: give a run of that flow"
        assert str(caught.value) == said
    async with Engine(store=tmp_path / "other", workers=1) as other:
        handle = await other.start(Linear)
        elsewhere = await handle
    for origin in (elsewhere, handle):
        with pytest.raises(ResumeError, match=r"is in the store .*other, but this engine uses"):
            await engine.resume(Linear, origin=origin)


async def test_a_run_that_is_still_running_is_not_resumed(engine):
    """Two engines never work on the same tasks."""
    from tests.support.flows import Sleeping

    handle = await engine.start(Sleeping)
    with pytest.raises(ResumeError, match="still running"):
        await engine.resume(Sleeping, origin=handle.run_id)
    handle.cancel()


async def test_a_changed_graph_is_explained(engine, tmp_path):
    """A finished step that leads elsewhere now is named, with where it led and leads."""
    origin = await fail(engine, tmp_path)

    class Changed(FlowSpec):
        @step
        def start(self):
            self.next(self.end)

        @step
        def end(self):
            pass

    Changed.__name__ = "Repaired"
    with pytest.raises(ResumeError, match="'start' had finished and led to work over 'items'"):
        await engine.resume(Changed, origin=origin)


class Patient(FlowSpec):
    """Fails at first, and waits for its retry."""

    @retry(times=1, seconds=1.5)
    @step
    def start(self):
        if current.attempt == 0:
            raise ValueError
        self.attempt = current.attempt
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_a_retry_that_was_waiting_waits_what_is_left(engine):
    """A resume goes on with the attempt to come, when its time has come and not before."""
    handle = await engine.start(Patient)
    async for event in handle.events():
        if isinstance(event, events.TaskRetried):
            due = time.time() + event.after_seconds
            handle.cancel()
    run = await engine.resume(Patient, origin=handle.run_id)
    (started,) = [e for e in run.events() if isinstance(e, events.TaskStarted) and e.attempt == 1]
    assert run.data.attempt == 1
    assert started.time.timestamp() >= due - 0.1


async def test_a_retry_waits_no_longer_than_ordered_when_the_clock_was_set_back(
    engine, monkeypatch
):
    """Though a day has to go by until the clock is where it was when the retry was ordered."""
    handle = await engine.start(Patient)
    async for event in handle.events():
        if isinstance(event, events.TaskRetried):
            handle.cancel()
    read = time.time
    monkeypatch.setattr("asyncflow.scheduling.resume.time", lambda: read() - 86_400)
    run = await asyncio.wait_for(engine.resume(Patient, origin=handle.run_id), 60)
    assert run.data.attempt == 1


async def test_a_step_that_is_run_again_begins_with_its_first_attempt(engine):
    """Also where it was waiting for a retry."""
    handle = await engine.start(Patient)
    async for event in handle.events():
        if isinstance(event, events.TaskRetried):
            handle.cancel()
    run = await engine.resume(Patient, origin=handle.run_id, step="start")
    began = [event.attempt for event in run.events(events.TaskStarted) if event.step == "start"]
    assert began == [0, 1]


PROGRAM = """
    import os, sys, time
    from asyncflow import FlowSpec, step

    class Killed(FlowSpec):
        @step
        def start(self):
            self.items = list(range(40))
            self.next(self.work, foreach="items")

        @step
        def work(self):
            with open(os.environ["RAN"], "a") as file:
                file.write(f"{self.input}\\n")
            time.sleep(0.02)
            self.square = self.input ** 2
            self.next(self.join)

        @step
        def join(self, inputs):
            self.total = sum(task.square for task in inputs)
            self.next(self.end)

        @step
        def end(self):
            pass

    if __name__ == "__main__":
        Killed()
"""


def test_after_kill_9_nothing_is_left_and_a_resume_completes(store, tmp_path):
    """No process survives its engine; the run is interrupted; no announced task is run again."""
    program = tmp_path / "killed.py"
    program.write_text(textwrap.dedent(PROGRAM))
    environ = {**os.environ, "RAN": str(tmp_path / "ran")}
    command = [sys.executable, "-m", "asyncflow", "run", str(program), "--workers", "2"]
    with subprocess.Popen(
        command, env=environ, stdout=subprocess.PIPE, start_new_session=True
    ) as engine:
        assert engine.stdout is not None
        for line in engine.stdout:
            if line.count(b"finished successfully") and b"work/12" in line:
                break
        children = psutil.Process(engine.pid).children(recursive=True)
        engine.send_signal(signal.SIGKILL)
    assert len(children) == 4  # the reaper, the fork server and two workers
    assert not psutil.wait_procs(children, timeout=180)[1]

    origin = Flow("Killed").latest_run
    assert origin.status is Status.INTERRUPTED
    finished = {
        event.path
        for event in origin.events()
        if isinstance(event, events.TaskSucceeded) and event.step == "work"
    }
    assert finished
    before = (tmp_path / "ran").read_text().split()
    resume = [sys.executable, "-m", "asyncflow", "resume", str(program)]
    subprocess.run([*resume, "--origin-run-id", origin.id], env=environ, check=True)
    again = (tmp_path / "ran").read_text().split()[len(before) :]
    assert not {int(number) for number in again} & {path[0] for path in finished}
    assert Flow("Killed").latest_run.data.total == sum(n * n for n in range(40))


def test_a_stopped_worker_does_not_outlive_its_engine(store, tmp_path):
    """Not even a worker under SIGSTOP."""
    program = tmp_path / "killed.py"
    program.write_text(textwrap.dedent(PROGRAM))
    environ = {**os.environ, "RAN": str(tmp_path / "ran")}
    command = [sys.executable, "-m", "asyncflow", "run", str(program), "--workers", "1"]
    with subprocess.Popen(
        command, env=environ, stdout=subprocess.PIPE, start_new_session=True
    ) as engine:
        assert engine.stdout is not None
        for line in engine.stdout:
            if b"work/3" in line:
                break
        children = psutil.Process(engine.pid).children(recursive=True)
        children[-1].suspend()
        engine.kill()
    assert not psutil.wait_procs(children, timeout=180)[1]


# --- a changed flow, nested foreachs, what was broken off ----------------------------------------


def keys(run, *types):
    """Step and path of the tasks that events of these types are about."""
    return [(event.step, event.path) for event in run.events() if isinstance(event, types)]


class Grid(FlowSpec):
    """A foreach in a foreach with branches inside; some cells fail until a file is there."""

    mended = Parameter("mended", required=True, type=str)

    @step
    def start(self):
        self.rows = [0, 1, 2]
        self.next(self.spread, foreach="rows")

    @step
    def spread(self):
        self.row = self.input
        self.columns = range(self.row + 1)
        self.next(self.cell, foreach="columns")

    @step
    def cell(self):
        self.place = (self.row, self.input)
        self.next(self.left, self.right)

    @step
    def left(self):
        self.value = ("left", self.place)
        self.next(self.meet)

    @step
    def right(self):
        if self.place in {(1, 1), (2, 0)} and not Path(str(self.mended)).exists():
            raise ValueError
        self.value = ("right", self.place)
        self.next(self.meet)

    @step
    def meet(self, inputs):
        self.values = [branch.value for branch in inputs]
        self.next(self.line)

    @step
    def line(self, inputs):
        self.line_values = [task.values for task in inputs]
        self.next(self.page)

    @step
    def page(self, inputs):
        self.page_values = [task.line_values for task in inputs]
        self.next(self.end)

    @step
    def end(self):
        pass


async def fail_flow(engine, flow, **parameters):
    """A run that fails."""
    with pytest.raises(RunFailedError) as caught:
        await engine.run(flow, **parameters)
    return caught.value.run


async def test_a_partly_finished_nested_foreach_is_completed(engine, tmp_path):
    """What is there is taken over, the rest is run, and every value comes to its own place."""
    mended = tmp_path / "mended"
    origin = await fail_flow(engine, Grid, mended=str(mended))
    mended.touch()
    run = await engine.resume(Grid)
    assert run.data.page_values == [
        [[("left", (row, column)), ("right", (row, column))] for column in range(row + 1)]
        for row in range(3)
    ]
    assert run.origin_run_id == origin.id
    cloned = keys(run, events.TaskCloned)
    assert sorted(cloned) == sorted(keys(origin, events.TaskSucceeded))
    assert not set(cloned) & set(keys(run, events.TaskStarted))


async def test_without_an_origin_the_latest_run_is_resumed(engine, tmp_path):
    """And where there is none, that is said."""
    mended = tmp_path / "mended"
    await fail_flow(engine, Grid, mended=str(mended))
    latest = await fail_flow(engine, Grid, mended=str(mended))
    mended.touch()
    assert (await engine.resume(Grid)).origin_run_id == latest.id
    with pytest.raises(ResumeError, match="Lonely has no run in"):
        await engine.resume(Lonely)


class Lonely(FlowSpec):
    """Was never run."""

    @step
    def start(self):
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_a_run_that_has_succeeded_is_taken_over_whole(engine, tmp_path):
    """Nothing is run, and the new run has the same artifacts."""
    mended = tmp_path / "mended"
    mended.touch()
    origin = await engine.run(Grid, mended=str(mended))
    run = await engine.resume(Grid, origin=origin.id)
    assert run.status is Status.SUCCEEDED
    assert keys(run, events.TaskStarted) == []
    assert run.data.page_values == origin.data.page_values


class Budget(FlowSpec):
    """Fails for good, after a retry; how its attempts are counted is what it keeps."""

    @step
    def start(self):
        self.next(self.work)

    @retry(times=2, seconds=0)
    @step
    def work(self):
        if current.origin_run_id is None or current.attempt == 0:
            raise ValueError
        self.attempt = current.attempt
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_a_task_that_had_failed_for_good_has_all_its_attempts_again(engine):
    """A resume begins with its first attempt, and retries it as the step says."""
    origin = await fail_flow(engine, Budget)
    assert len(list(origin["work"].task.attempts())) == 3
    store = engine.settings.store
    assert preview_resume(Budget, store=store, origin=origin.id)[1].why == "had failed"
    run = await engine.resume(Budget)
    assert run["work"].task.data.attempt == 1


# --- the code has changed -----------------------------------------------------------------------


class First(FlowSpec):
    """A flow as it was."""

    rate = 1
    alpha = Parameter("alpha", default=1)

    @step
    def start(self):
        self.x = self.alpha
        self.next(self.train)

    @step
    def train(self):
        self.y = self.x * 10
        self.next(self.report)

    @step
    def report(self):
        self.next(self.end)

    @step
    def end(self):
        raise ValueError


class WithoutReport(FlowSpec):
    """The same, with a new parameter, a mended end, and one step less."""

    rate = 2
    alpha = Parameter("alpha", default=1)
    beta = Parameter("beta", default=7)

    @step
    def start(self):
        self.x = -1
        self.next(self.train)

    @step
    def train(self):
        self.y = self.x * 100 + self.beta
        self.next(self.end)

    @step
    def end(self):
        self.beta_seen, self.rate_seen = self.beta, self.rate


class Demanding(FlowSpec):
    """A flow with a parameter that nobody has given."""

    alpha = Parameter("alpha", default=1)
    gamma = Parameter("gamma", required=True, type=int)

    @step
    def start(self):
        self.next(self.train)

    @step
    def train(self):
        self.next(self.report)

    @step
    def report(self):
        self.next(self.end)

    @step
    def end(self):
        self.gamma_seen = self.gamma


class Unlike(FlowSpec):
    """The step that had finished has become a join of branches."""

    @step
    def start(self):
        self.next(self.train, self.other)

    @step
    def train(self):
        self.next(self.report)

    @step
    def other(self):
        self.next(self.report)

    @step
    def report(self, inputs):
        self.next(self.end)

    @step
    def end(self):
        pass


for changed in (WithoutReport, Demanding, Unlike):
    changed.__name__ = "First"  # as if the file had been edited


@pytest.fixture
async def first(engine):
    """A run of the flow as it was."""
    return await fail_flow(engine, First, alpha=5)


async def test_a_step_that_is_gone_is_explained(engine, first):
    """The step that led to it is named, with what it leads to now, and what to do."""
    with pytest.raises(ResumeError) as caught:
        await engine.resume(WithoutReport, origin=first.id)
    assert "'train' had finished and led to report; now it leads to end" in str(caught.value)
    assert "asyncflow resume FILE train" in str(caught.value)


async def test_from_a_named_step_on_it_does_not_matter_what_followed(engine, first):
    """A step that is gone from what is run again anyhow is in nobody's way."""
    run = await engine.resume(WithoutReport, origin=first.id, step="train")
    assert keys(run, events.TaskCloned) == [("start", ())]
    assert run.data.y == 5 * 100 + 7


async def test_a_parameter_that_is_new_has_its_default(engine, first):
    """The others are those of the origin."""
    run = await engine.resume(WithoutReport, origin=first.id, step="train")
    assert (run.data.alpha, run.data.beta, run.data.beta_seen) == (5, 7, 7)


async def test_a_constant_is_what_the_class_says_now(engine, first):
    """In each task, whether it is run, was taken over, or follows one that was."""
    run = await engine.resume(WithoutReport, origin=first.id, step="train")
    assert (run["start"].task.data.rate, run.data.rate_seen, run.data.rate) == (2, 2, 2)
    assert first["start"].task.data.rate == 1


class Rated(FlowSpec):
    """Fails in its join."""

    rate = 1

    @step
    def start(self):
        self.items = [1, 2]
        self.next(self.work, foreach="items")

    @step
    def work(self):
        self.next(self.join)

    @step
    def join(self, inputs):
        if len(inputs) > 1:
            raise ValueError
        self.next(self.end)

    @step
    def end(self):
        pass


class RatedAnew(Rated):
    """The same with another rate, which looks at its inputs."""

    rate = 2
    limit = 3

    @step
    def join(self, inputs):
        self.rates = [(each.rate, each.limit) for each in inputs]
        self.next(self.end)


RatedAnew.__name__ = "Rated"


async def test_the_inputs_of_a_join_have_the_constants_of_the_run(engine):
    """Also inputs that were taken over from a run in which the class said something else."""
    with pytest.raises(RunFailedError):
        await engine.run(Rated)
    run = await engine.resume(RatedAnew)
    assert run.data.rates == [(2, 3), (2, 3)]
    assert [task.data.rate for task in run["work"]] == [2, 2]


async def test_a_new_parameter_without_a_default_is_asked_for(engine, first, monkeypatch):
    """The error tells the one way in which it can be given, and a plan says the same."""
    message = "give it in the environment as ASYNCFLOW_RUN_GAMMA$"
    with pytest.raises(ParameterError, match=message):
        await engine.resume(Demanding, origin=first.id)
    with pytest.raises(ParameterError, match=message):
        preview_resume(Demanding, store=engine.settings.store, origin=first.id)
    monkeypatch.setenv("ASYNCFLOW_RUN_GAMMA", "3")
    run = await engine.resume(Demanding, origin=first.id)
    assert run.data.gamma_seen == 3


async def test_another_graph_is_explained(engine, first):
    """What had finished led elsewhere; from which step on to run again is told."""
    with pytest.raises(ResumeError) as caught:
        await engine.resume(Unlike, origin=first.id)
    assert "led to train; now it leads to train, other" in str(caught.value)
    assert "asyncflow resume FILE start" in str(caught.value)


# --- from the command line ----------------------------------------------------------------------

ENDLESS = """
    import os, sys, time
    from asyncflow import FlowSpec, step

    class Endless(FlowSpec):
        @step
        def start(self):
            self.next(self.end)

        @step
        def end(self):
            print("at work", flush=True)
            time.sleep(60 if os.environ.get("ENDLESS") else 0)
            self.answer = 42
"""


def test_a_run_of_another_process_is_refused_while_it_runs_and_resumed_after(store, tmp_path):
    """The refusal says why, is told by `--plan` too, and after `kill -9` a resume completes it."""
    program = tmp_path / "endless.py"
    program.write_text(textwrap.dedent(ENDLESS))
    command = [sys.executable, "-m", "asyncflow"]
    with subprocess.Popen(
        [*command, "run", str(program)],
        stdout=subprocess.PIPE,
        env={**os.environ, "ENDLESS": "1"},
    ) as running:
        assert running.stdout is not None
        for line in running.stdout:
            if b"at work" in line:
                break
        for more in ([], ["--plan"]):
            refused = subprocess.run(
                [*command, "resume", str(program), *more],
                capture_output=True,
                text=True,
                check=False,
            )
            assert refused.returncode == 2
            assert "is still running: wait for its end, or cancel it" in refused.stderr
        running.kill()
    assert Flow("Endless").latest_run.status is Status.INTERRUPTED
    told = subprocess.run(
        [*command, "resume", str(program), "--plan", "--json"], capture_output=True, check=True
    )
    assert [(one["reused"], one["to_run"], one["why"]) for one in json.loads(told.stdout)] == [
        (1, 0, ""),
        (0, 1, "had not ended"),
    ]
    done = subprocess.run(
        [*command, "resume", str(program), "--json"], capture_output=True, check=True
    )
    assert Run(json.loads(done.stdout)["pathspec"]).data.answer == 42


# --- a run that was broken off early, or while it took over --------------------------------------


@pytest.fixture
async def lone_engine(store):
    """An open engine with one worker, so that tasks end in order."""
    async with Engine(store=store, workers=1) as opened:
        yield opened


async def fail_in_order(lone_engine, origin="", **more):
    """A failed run, or a failed resume."""
    with pytest.raises(RunFailedError) as caught:
        await (
            lone_engine.resume(Fails, origin=origin, **more) if origin else lone_engine.run(Fails)
        )
    return caught.value.run.id


def cut(store, run_id, records):
    """Leave of a run what a crash after so many records would have left."""
    folder = store / "flows" / "Fails" / run_id
    for name in ("summary", "index"):
        (folder / name).unlink()
    with JournalReader(folder / "journal") as journal:
        ends = [len(HEADER), *(end for _, _, end in journal.read_from())]
    with (folder / "journal").open("r+b") as file:
        file.truncate(ends[records])


def keys_of(run_id, *types):
    """Step and path of the tasks that events of these types are about."""
    seen = Run(f"Fails/{run_id}").events()
    return {(event.step, event.path) for event in seen if isinstance(event, types)}


@pytest.mark.parametrize("records", [1, 2, 3])
async def test_a_resume_killed_while_taking_over_loses_nothing(lone_engine, store, records):
    """What it had not taken over yet is taken over from where it would have come from."""
    first = await fail_in_order(lone_engine)
    second = await fail_in_order(lone_engine, first)
    cut(store, second, records)
    third = await fail_in_order(lone_engine, second)
    assert keys_of(third, events.TaskCloned) == keys_of(first, events.TaskSucceeded)
    assert keys_of(third, events.TaskStarted) == {("work", (4,))}


async def test_a_resume_that_was_cancelled_while_taking_over_loses_nothing(lone_engine, store):
    """Also when it had told already of a task that goes on waiting for its retry."""
    first = await fail_in_order(lone_engine)
    layout = Layout(store)
    second = layout.create_run("Fails")
    begun = next(Run(f"Fails/{first}").events())
    assert isinstance(begun, events.RunStarted)
    seen: dict[str, Any] = {"flow": "Fails", "run_id": second, "time": begun.time}
    task: dict[str, Any] = {
        "step": "work",
        "task_id": "1",
        "attempt": 1,
        "path": (4,),
    }
    journal = begin_journal(layout.run_dir("Fails", second) / "journal")
    for event in (
        replace(begun, **seen, seq=1, origin_run_id=first),
        events.TaskRetried(**seen, seq=2, **task, after_seconds=0.0),
        events.RunCancelled(**seen, seq=3),
    ):
        journal.write(frame(pack_event(event)))
    journal.close()
    third = await fail_in_order(lone_engine, second)
    assert keys_of(third, events.TaskCloned) == keys_of(first, events.TaskSucceeded)


async def test_what_has_taken_over_everything_is_resumed_without_its_own_origin(lone_engine, store):
    """The first of three runs may be damaged by then."""
    first = await fail_in_order(lone_engine)
    second = await fail_in_order(lone_engine, first)
    journal = store / "flows" / "Fails" / first / "journal"
    data = bytearray(journal.read_bytes())
    data[len(HEADER) + 20] ^= 1
    journal.write_bytes(data)
    third = await fail_in_order(lone_engine, second)
    assert keys_of(third, events.TaskCloned) == keys_of(second, events.TaskCloned)
    assert keys_of(third, events.TaskStarted) == {("work", (4,))}


async def test_the_log_of_what_was_taken_over_twice_is_still_found(lone_engine, store):
    """A task that was skipped over by a broken-off resume is told from the run that ran it."""
    first = await fail_in_order(lone_engine)
    second = await fail_in_order(lone_engine, first)
    cut(store, second, 2)
    third = await fail_in_order(lone_engine, second)
    assert sorted(task.stdout for task in Run(f"Fails/{third}")["work"]) == [
        f"item {n}\n" for n in range(5)
    ]


async def test_the_log_of_a_task_is_found_when_the_run_that_ran_it_has_been_removed(
    lone_engine, store
):
    """Removing a run keeps what the run that resumed it refers to, what was printed as well."""
    first = await fail_in_order(lone_engine)
    second = await fail_in_order(lone_engine, first)
    remove(Layout(store), [("Fails", first)])
    assert [run.id for run in Flow("Fails")] == [second]
    assert sorted(task.stdout for task in Run(f"Fails/{second}")["work"]) == [
        f"item {n}\n" for n in range(5)
    ]


async def test_a_step_that_was_named_stays_named(lone_engine, store):
    """A broken-off resume from a step on does not bring back what it was to run again."""
    first = await fail_in_order(lone_engine)
    second = await fail_in_order(lone_engine, first, step="work")
    cut(store, second, 1)
    third = await fail_in_order(lone_engine, second)
    assert keys_of(third, events.TaskCloned) == {("start", ())}


async def test_a_run_without_a_first_event_is_refused(lone_engine, store):
    """There is nothing to go on from, and the error says what to do."""
    first = await fail_in_order(lone_engine)
    cut(store, first, 0)
    with pytest.raises(ResumeError, match="start the flow again"):
        await lone_engine.resume(Fails, origin=first)


async def test_two_engines_may_resume_the_same_run_at_once(lone_engine, store):
    """Each makes a run of its own; neither disturbs the other."""
    first = await fail_in_order(lone_engine)
    async with Engine(store=store, workers=1) as other:
        one = await lone_engine.start_resumed(Fails, origin=first)
        two = await other.start_resumed(Fails, origin=first)
        for handle in (one, two):
            with pytest.raises(RunFailedError):
                await handle
    assert one.run_id != two.run_id
    for handle in (one, two):
        assert keys_of(handle.run_id, events.TaskCloned) == keys_of(first, events.TaskSucceeded)
