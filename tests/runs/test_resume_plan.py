"""What a resume says that it would do, for runs of real workers."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import pytest

from asyncflow import Engine, Flow, FlowSpec, Parameter, Run, events, step
from asyncflow.errors import RunCancelledError, RunFailedError
from asyncflow.scheduling.resume_preview import preview_resume
from asyncflow.values import Status
from tests.support.command_line import asyncflow, here
from tests.support.flows import Fails, Sleeping


@pytest.fixture
async def engine(store):
    """An open engine with one worker, so that tasks end in order."""
    async with Engine(store=store, workers=1) as opened:
        yield opened


async def fail(engine, origin="", **more):
    """A failed run, or a failed resume."""
    with pytest.raises(RunFailedError) as caught:
        await (engine.resume(Fails, origin=origin, **more) if origin else engine.run(Fails))
    return caught.value.run.id


async def test_a_plan_says_what_is_reused_and_what_is_run_and_why(engine, store):
    """For each step: how many tasks, and the reason."""
    first = await fail(engine)
    plan = preview_resume(Fails, store=store, origin=first)
    assert [(each.step, each.reused, each.to_run, each.why) for each in plan] == [
        ("start", 1, 0, ""),
        ("work", 4, 1, "had failed"),
        ("join", 0, 1, "after work"),
        ("end", 0, 1, "after join"),
    ]
    assert [run.id for run in Flow("Fails")] == [first]


async def test_a_plan_from_a_step_on_says_what_is_not_known_yet(engine, store):
    """How many tasks a foreach will have is known when it has run."""
    first = await fail(engine)
    plan = preview_resume(Fails, store=store, origin=first, step="start")
    assert [(each.reused, each.to_run, each.why) for each in plan] == [
        (0, 1, "named to be run again"),
        (0, 0, "known once start has run"),
        (0, 1, "after work"),
        (0, 1, "after join"),
    ]


PROGRAM = """
from asyncflow import FlowSpec, step

class Small(FlowSpec):
    @step
    def start(self):
        self.next(self.end)

    @step
    def end(self):
        raise ValueError
"""


@pytest.fixture
def failed(store, tmp_path):
    """The file of a flow that has failed, and the run's id."""
    file = tmp_path / "small.py"
    file.write_text(PROGRAM)
    return str(file), json.loads(asyncflow("run", file, "--json").stdout)["run_id"]


def test_resume_plan_prints_a_table_and_runs_nothing(failed):
    """A line for each step."""
    file, origin = failed
    shown = here("resume", file, "--origin-run-id", origin, "--plan").stdout
    assert [line.split() for line in shown.splitlines()[2:]] == [
        ["step", "reused", "to", "run", "why"],
        ["start", "1", "0"],
        ["end", "0", "1", "had", "failed"],
    ]
    assert len(list(Flow("Small"))) == 1


def test_resume_plan_prints_json_for_a_program(failed):
    """The same as data."""
    file, origin = failed
    shown = here("resume", file, "--origin-run-id", origin, "--plan", "--json").stdout
    wanted = {"step": "end", "reused": 0, "to_run": 1, "at_least": False, "why": "had failed"}
    assert json.loads(shown)[1] == wanted


class Fragile(FlowSpec):
    """Some of its cells fail, as a file says."""

    bad = Parameter("bad", required=True, type=str)

    @step
    def start(self):
        self.rows = [3, 0, 2]
        self.next(self.spread, foreach="rows")

    @step
    def spread(self):
        self.columns = range(self.input)
        self.row = self.index
        self.next(self.cell, foreach="columns")

    @step
    def cell(self):
        if f"{self.row},{self.index}" in Path(str(self.bad)).read_text().split():
            raise ValueError
        self.next(self.line)

    @step
    def line(self, inputs):
        if f"{self.index}" in Path(str(self.bad)).read_text().split():
            raise ValueError
        self.next(self.page)

    @step
    def page(self, inputs):
        self.next(self.end)

    @step
    def end(self):
        pass


@pytest.mark.parametrize("seed", range(3))
async def test_a_plan_is_what_a_real_resume_does(store, tmp_path, seed):
    """With failures at random, from any step on, and of a run that was itself resumed."""
    chance = random.Random(seed)
    bad = tmp_path / "bad"
    async with Engine(store=store, workers=2) as engine:
        bad.write_text(" ".join(["2", *chance.sample(["0,0", "0,2", "2,1", "0", "1"], 2)]))
        with pytest.raises(RunFailedError):
            await engine.run(Fragile, bad=str(bad))
        bad.write_text("2")
        with pytest.raises(RunFailedError):
            await engine.resume(Fragile)
        bad.write_text("")
        named = chance.choice([None, "start", "cell", "line", "end"])
        origin = await engine.start_resumed(Fragile)
        origin.cancel()
        with pytest.raises(Exception, match="cancelled"):
            await origin
        told = preview_resume(Fragile, store=store, origin=origin.run_id, step=named)
        run = await engine.resume(Fragile, step=named)
    seen = list(run.events())
    cloned = Counter(event.step for event in seen if isinstance(event, events.TaskCloned))
    ran = Counter(event.step for event in seen if isinstance(event, events.TaskStarted))
    for each in told:
        assert each.reused == cloned[each.step]
        assert each.to_run == ran[each.step] or (each.open_ended and each.to_run < ran[each.step])


@pytest.mark.parametrize("index", ["written", "lost"])
async def test_what_a_cancel_has_stopped_is_not_told_as_failed(store, index):
    """Its step counts it as cancelled, with the index of the run and without; a plan as stopped."""
    async with Engine(store=store, workers=1) as engine:
        handle = await engine.start(Sleeping)
        async for event in handle.events():
            if isinstance(event, events.TaskLogged) and event.line == "sleeping":
                handle.cancel()
        with pytest.raises(RunCancelledError):
            await handle
    if index == "lost":
        folder = store / "flows" / "Sleeping" / handle.run_id
        (folder / "index").unlink()
        (folder / "summary").unlink()
    run = Run(f"Sleeping/{handle.run_id}", store=store)
    assert run["sleep"].counts() == {Status.CANCELLED: 1}
    assert run["sleep"].task.status is Status.CANCELLED
    told = preview_resume(Sleeping, store=store, origin=handle.run_id)
    assert [each.why for each in told] == ["", "had been stopped", "after sleep"]
