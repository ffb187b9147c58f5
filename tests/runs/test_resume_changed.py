"""Coming back to a changed flow, to nested foreachs, and to what was broken off."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from asyncflow import Engine, Flow, FlowSpec, Parameter, Run, current, events, retry, step
from asyncflow.errors import ParameterError, ResumeError, RunFailedError
from asyncflow.scheduling.resume_preview import preview_resume
from asyncflow.values import Status


@pytest.fixture(scope="module")
async def engine(tmp_path_factory):
    """An open engine with two workers."""
    async with Engine(store=tmp_path_factory.mktemp("back") / "store", workers=2) as opened:
        yield opened


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


async def fail(engine, flow, **parameters):
    """A run that fails."""
    with pytest.raises(RunFailedError) as caught:
        await engine.run(flow, **parameters)
    return caught.value.run


async def test_a_partly_finished_nested_foreach_is_completed(engine, tmp_path):
    """What is there is taken over, the rest is run, and every value comes to its own place."""
    mended = tmp_path / "mended"
    origin = await fail(engine, Grid, mended=str(mended))
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
    await fail(engine, Grid, mended=str(mended))
    latest = await fail(engine, Grid, mended=str(mended))
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
    origin = await fail(engine, Budget)
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
    return await fail(engine, First, alpha=5)


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

PROGRAM = """
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
    program.write_text(textwrap.dedent(PROGRAM))
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
