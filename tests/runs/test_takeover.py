"""What a resume takes over from a run that was broken off early, and what it says it would do."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

from asyncflow import Engine, Flow, FlowSpec, Run, events, step
from asyncflow.errors import ResumeError, RunFailedError
from asyncflow.events.packing import pack_event
from asyncflow.scheduling.resume_preview import preview_resume
from asyncflow.store.journal import HEADER, JournalReader, frame
from asyncflow.store.layout import Layout
from asyncflow.store.maintenance.remove import remove
from tests.support.store_files import begin_journal


class Fails(FlowSpec):
    """Its last item fails, once the others have ended."""

    @step
    def start(self):
        self.items = list(range(5))
        self.next(self.work, foreach="items")

    @step
    def work(self):
        print("item", self.input)
        if self.input == 4:
            raise ValueError
        self.next(self.join)

    @step
    def join(self, inputs):
        self.next(self.end)

    @step
    def end(self):
        pass


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


def cut(store, run_id, records):
    """Leave of a run what a crash after so many records would have left."""
    folder = store / "flows" / "Fails" / run_id
    for name in ("summary", "index"):
        (folder / name).unlink()
    with JournalReader(folder / "journal") as journal:
        ends = [len(HEADER), *(end for _, _, end in journal.read_from())]
    with (folder / "journal").open("r+b") as file:
        file.truncate(ends[records])


def keys(run_id, *types):
    """Step and path of the tasks that events of these types are about."""
    seen = Run(f"Fails/{run_id}").events()
    return {(event.step, event.path) for event in seen if isinstance(event, types)}


@pytest.mark.parametrize("records", [1, 2, 3])
async def test_a_resume_killed_while_taking_over_loses_nothing(engine, store, records):
    """What it had not taken over yet is taken over from where it would have come from."""
    first = await fail(engine)
    second = await fail(engine, first)
    cut(store, second, records)
    third = await fail(engine, second)
    assert keys(third, events.TaskCloned) == keys(first, events.TaskSucceeded)
    assert keys(third, events.TaskStarted) == {("work", (4,))}


async def test_a_resume_that_was_cancelled_while_taking_over_loses_nothing(engine, store):
    """Also when it had told already of a task that goes on waiting for its retry."""
    first = await fail(engine)
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
    third = await fail(engine, second)
    assert keys(third, events.TaskCloned) == keys(first, events.TaskSucceeded)


async def test_what_has_taken_over_everything_is_resumed_without_its_own_origin(engine, store):
    """The first of three runs may be damaged by then."""
    first = await fail(engine)
    second = await fail(engine, first)
    journal = store / "flows" / "Fails" / first / "journal"
    data = bytearray(journal.read_bytes())
    data[len(HEADER) + 20] ^= 1
    journal.write_bytes(data)
    third = await fail(engine, second)
    assert keys(third, events.TaskCloned) == keys(second, events.TaskCloned)
    assert keys(third, events.TaskStarted) == {("work", (4,))}


async def test_the_log_of_what_was_taken_over_twice_is_still_found(engine, store):
    """A task that was skipped over by a broken-off resume is told from the run that ran it."""
    first = await fail(engine)
    second = await fail(engine, first)
    cut(store, second, 2)
    third = await fail(engine, second)
    assert sorted(task.stdout for task in Run(f"Fails/{third}")["work"]) == [
        f"item {n}\n" for n in range(5)
    ]


async def test_the_log_of_a_task_is_found_when_the_run_that_ran_it_has_been_removed(engine, store):
    """Removing a run keeps what the run that resumed it refers to, what was printed as well."""
    first = await fail(engine)
    second = await fail(engine, first)
    remove(Layout(store), [("Fails", first)])
    assert [run.id for run in Flow("Fails")] == [second]
    assert sorted(task.stdout for task in Run(f"Fails/{second}")["work"]) == [
        f"item {n}\n" for n in range(5)
    ]


async def test_a_step_that_was_named_stays_named(engine, store):
    """A broken-off resume from a step on does not bring back what it was to run again."""
    first = await fail(engine)
    second = await fail(engine, first, step="work")
    cut(store, second, 1)
    third = await fail(engine, second)
    assert keys(third, events.TaskCloned) == {("start", ())}


async def test_a_run_without_a_first_event_is_refused(engine, store):
    """There is nothing to go on from, and the error says what to do."""
    first = await fail(engine)
    cut(store, first, 0)
    with pytest.raises(ResumeError, match="run the flow anew"):
        await engine.resume(Fails, origin=first)


async def test_two_engines_may_resume_the_same_run_at_once(engine, store):
    """Each makes a run of its own; neither disturbs the other."""
    first = await fail(engine)
    async with Engine(store=store, workers=1) as other:
        one = await engine.start_resumed(Fails, origin=first)
        two = await other.start_resumed(Fails, origin=first)
        for handle in (one, two):
            with pytest.raises(RunFailedError):
                await handle
    assert one.run_id != two.run_id
    for handle in (one, two):
        assert keys(handle.run_id, events.TaskCloned) == keys(first, events.TaskSucceeded)


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
        (0, 0, "as many as start hands out"),
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


def asyncflow(*arguments):
    """What the command prints."""
    command = [sys.executable, "-m", "asyncflow", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
    return done.stdout.decode()


@pytest.fixture
def failed(store, tmp_path):
    """The file of a flow that has failed, and the run's id."""
    file = tmp_path / "small.py"
    file.write_text(PROGRAM)
    return str(file), json.loads(asyncflow("run", str(file), "--json"))["run_id"]


def test_resume_plan_prints_a_table_and_runs_nothing(failed):
    """A line for each step."""
    file, origin = failed
    shown = asyncflow("resume", file, "--origin-run-id", origin, "--plan")
    assert [line.split() for line in shown.splitlines()[2:]] == [
        ["step", "reused", "to", "run", "why"],
        ["start", "1", "0"],
        ["end", "0", "1", "had", "failed"],
    ]
    assert len(list(Flow("Small"))) == 1


def test_resume_plan_prints_json_for_a_program(failed):
    """The same as data."""
    file, origin = failed
    data = json.loads(asyncflow("resume", file, "--origin-run-id", origin, "--plan", "--json"))
    wanted = {"step": "end", "reused": 0, "to_run": 1, "at_least": False, "why": "had failed"}
    assert data[1] == wanted
