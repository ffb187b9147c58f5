"""Conditions choose the next step, which may be an earlier one."""

from __future__ import annotations

from pathlib import Path

import pytest

from asyncflow import Engine, FlowSpec, Parameter, events, step
from asyncflow.errors import RunFailedError
from asyncflow.scheduling.resume_preview import preview_resume
from tests.support.language_flows import Choosing, Looping


@pytest.fixture(scope="module")
async def engine(tmp_path_factory):
    """An open engine with two workers, for all tests of this file."""
    async with Engine(store=tmp_path_factory.mktemp("conditions"), workers=2) as opened:
        yield opened


@pytest.fixture(scope="module")
async def chosen(engine):
    """A run of `Choosing`."""
    return await engine.run(Choosing)


@pytest.fixture(scope="module")
async def looped(engine):
    """A run of `Looping`."""
    return await engine.run(Looping)


def named(tasks):
    """Step and id of tasks."""
    return [(task.parent.id, int(task.id)) for task in tasks]


class Undecided(FlowSpec):
    """Its condition has the value that it is given."""

    kind = Parameter("kind", default="b")

    @step
    def start(self):
        if self.kind != "nothing":
            self.way: object = [] if self.kind == "list" else self.kind
        self.next({"a": self.end, "b": self.end, 3: self.end}, condition="way")

    @step
    def end(self):
        pass


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("c", "condition='way', but self.way is 'c', which is none of the cases: 'a', 'b', 3"),
        ("3", "self.way is '3', which is none of the cases"),
        ("list", "self.way is [], which is none of the cases"),
        ("nothing", "condition='way', but there is no self.way: assign it before"),
    ],
)
async def test_a_value_that_is_no_case_fails_the_task(engine, kind, words):
    """The error lists the cases."""
    with pytest.raises(RunFailedError) as caught:
        await engine.run(Undecided, kind=kind)
    assert caught.value.failure.type == "asyncflow.errors.TransitionError"
    assert words in caught.value.failure.message


async def test_steps_that_were_not_chosen_have_no_tasks(chosen):
    """They are not steps of the run."""
    counts = {each.id: each.task_count for each in chosen}
    assert (counts["sort"], counts["large"], counts["met"], counts["join"]) == (4, 2, 3, 1)
    assert (counts["small"], counts["split"], counts["plain"]) == (1, 1, 1)


async def test_the_parents_are_the_tasks_that_led_to_it(chosen):
    """Not those of all steps that could have."""
    (join,), mets = chosen["join"], list(chosen["met"])
    assert [task.index for task in join.parents] == [0, 1, 2, 3]
    assert [task.parent.id for task in join.parents] == ["met", "met", "sort", "met"]
    before = {"small": "small", "left": "both", "plain": "plain"}
    assert [[parent.parent.id for parent in task.parents] for task in mets] == [
        [before[task["way"].data[0]]] for task in mets
    ]
    for run_step in chosen:
        for task in run_step:
            for child in task.children:
                assert (run_step.id, int(task.id)) in named(child.parents)
            for parent in task.parents:
                assert (run_step.id, int(task.id)) in named(parent.children)


async def test_each_turn_is_a_task_that_follows_the_one_before(looped):
    """Its key tells which turn it is; a foreach within has turns of its own."""
    turns = sorted(looped["count"], key=lambda task: int(task.id))
    assert [str(task.key) for task in turns][:4] == ["count", "count#2", "count#3", "count#4"]
    assert [task["rounds"].data for task in turns] == list(range(1, 10))
    assert [parent.parent.id for parent in turns[1].parents] == ["count"]
    assert [parent.parent.id for parent in turns[3].parents] == ["join"]
    last = [task for task in looped["climb"] if task["rounds"].data == 9 and task.index == 2]
    assert [(task.path, task["height"].data) for task in last] == [((2,), n) for n in (1, 2, 3)]


@pytest.mark.parametrize("which", ["chosen", "looped"])
async def test_everything_can_be_asked_of_a_run_with_conditions(chosen, looped, which):
    """Each property of its steps and tasks has an answer."""
    run = {"chosen": chosen, "looped": looped}[which]
    for run_step in run:
        for view in (run_step, *run_step):
            for name in dir(type(view)):
                if not name.startswith("_") and isinstance(getattr(type(view), name), property):
                    getattr(view, name)
    assert all(run_step.finished_at is not None for run_step in run)


async def test_the_key_of_each_task_is_its_own(looped):
    """A resume finds a task by it."""
    keys = [str(task.key) for run_step in looped for task in run_step]
    assert len(keys) == len(set(keys)) == 9 + 3 + 10 + 10 + 6 + 3 + 2


async def test_a_condition_in_the_events(looped):
    """A success says which step was chosen, and a start whom it follows."""
    told = [event for event in looped.events() if isinstance(event, events.TaskSucceeded)]
    assert [each.choice for each in told if each.step == "join"] == ["count", "count", "end"]
    assert {each.choice for each in told if each.step == "climb"} == {""}
    starts = [each for each in looped.events() if isinstance(each, events.TaskStarted)]
    assert all(each.parents for each in starts if each.step not in {"start", "join"})
    restored = [events.from_json(events.to_json(each)) for each in starts]
    assert restored == starts


class Stumbling(FlowSpec):
    """A loop that fails in its fourth turn until a file is there."""

    mended = Parameter("mended", required=True, type=str)

    @step
    def start(self):
        self.n, self.visits = 0, []
        self.next(self.turn)

    @step
    def turn(self):
        self.n += 1
        self.visits.append(self.n)
        if self.n == 4 and not Path(self.mended).exists():
            raise ValueError
        self.next(self.check)

    @step
    def check(self):
        self.again = self.n < 6
        self.next({True: self.turn, False: self.end}, condition="again")

    @step
    def end(self):
        pass


async def test_a_resume_goes_on_in_the_middle_of_a_loop(engine, tmp_path):
    """The turns that had finished are taken over, and none is run twice."""
    mended = tmp_path / "mended"
    with pytest.raises(RunFailedError) as caught:
        await engine.run(Stumbling, mended=str(mended))
    plan = {
        each.step: each
        for each in preview_resume(
            Stumbling, store=engine.settings.store, origin=caught.value.run.id
        )
    }
    assert (plan["turn"].reused, plan["turn"].to_run, plan["turn"].open_ended) == (3, 1, "check")
    assert (plan["check"].reused, plan["check"].to_run, plan["end"].to_run) == (3, 1, 1)
    mended.touch()
    run = await engine.resume(Stumbling, origin=caught.value.run.id)
    assert run.data.visits == [1, 2, 3, 4, 5, 6]
    turns = sorted(run["turn"], key=lambda task: int(task.id))
    assert [bool(task.origin_pathspec) for task in turns] == [True] * 3 + [False] * 3
    assert [str(task.key) for task in turns] == [
        "turn" + (f"#{n}" if n > 1 else "") for n in range(1, 7)
    ]
    assert [parent.parent.id for task in turns for parent in task.parents] == ["start"] + [
        "check"
    ] * 5


class OneStep(FlowSpec):
    """A flow of one step, of a name of its own."""

    @step(start=True, end=True)
    def only(self):
        self.x = 1


async def test_a_flow_of_one_step(engine):
    """Its artifacts are those of the run."""
    run = await engine.run(OneStep)
    assert run.data.x == 1
    assert run.end_task.parent.id == "only"
