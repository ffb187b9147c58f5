"""Coming back: what had finished is taken over, the rest is run."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest

from asyncflow import Engine, Flow, FlowSpec, Parameter, Run, current, events, retry, step
from asyncflow.errors import ResumeError, RunFailedError
from asyncflow.values import Status


@pytest.fixture
async def engine(store):
    """An open engine with two workers."""
    async with Engine(store=store, workers=2) as opened:
        yield opened


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
        for event in Run(f"Repaired/{origin}").events()
        if isinstance(event, events.TaskSucceeded)
    }
    assert cloned == finished
    assert not cloned & started
    assert run.data.total == sum(n * n for n in range(6))


async def test_a_resumed_run_keeps_the_tags_of_its_origin(engine, tmp_path):
    """Those that it is given as well come behind them."""
    origin = await fail(engine, tmp_path, tags=("nightly", "v2"))
    run = await engine.resume(Repaired, origin=origin, tags=("again", "v2"))
    assert run.tags == {"nightly", "v2", "again"}
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
    assert str(caught.value) == f"flow {Repaired.__name__} has no run '17' {where}"


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
    assert len(children) == 4  # the reaper, the template and two workers
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
