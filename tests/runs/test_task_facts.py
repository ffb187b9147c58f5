"""What is known of each task of a real run: its item, its processor time, its memory."""

from __future__ import annotations

import asyncio
import hashlib
import subprocess
import sys
import time

import pytest

from asyncflow import Engine, Flow, FlowSpec, catch, retry, step
from asyncflow.cli.tables import lines_of
from asyncflow.client.json_data import data_of
from asyncflow.client.log_text import LogRenderer
from asyncflow.errors import RunFailedError
from asyncflow.events import TaskCloned, TaskStarted
from asyncflow.store import run_times
from asyncflow.store.layout import Layout
from asyncflow.store.maintenance.verify import verify

MEGABYTE = 1 << 20


class City:
    """An item whose text is of its own making, and whose pickle nobody may open to name it."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        if self.name == "hostile":
            raise SystemExit(self.name)
        return f"City {self.name}"


class Naming(FlowSpec):
    """Fails for one item, until it is resumed; tries another one twice."""

    @step
    def start(self):
        self.cities = [City("berlin"), City("hostile"), City("rome")]
        self.next(self.visit, foreach="cities")

    @retry(times=1, seconds=0)
    @step
    def visit(self):
        print("seen", self.input.name)
        self.parts = ["a", "b"]
        if self.input.name == "hostile":
            raise ValueError("no such city")
        self.next(self.look, foreach="parts")

    @step
    async def look(self):
        await asyncio.sleep(0)
        self.next(self.gather)

    @step
    def gather(self, inputs):
        self.next(self.join)

    @step
    def join(self, inputs):
        self.next(self.end)

    @step
    def end(self):
        pass


class Again(FlowSpec):
    """Passes a list on that it has never read, and fans out over what a generator yields."""

    @step
    def start(self):
        self.words = ["one", "two"]
        self.next(self.first, foreach="words")

    @step
    def first(self):
        self.next(self.between)

    @step
    def between(self, inputs):
        self.merge_artifacts(inputs)
        self.next(self.second, foreach="words")

    @step
    def second(self):
        self.next(self.after)

    @step
    def after(self, inputs):
        self.numbers = (10 * number for number in range(2))
        self.next(self.third, foreach="numbers")

    @step
    def third(self):
        self.next(self.last)

    @step
    def last(self, inputs):
        self.next(self.end)

    @step
    def end(self):
        pass


class Using(FlowSpec):
    """Uses memory and processors in turn, one task after the other."""

    @step
    def start(self):
        self.jobs = ["idle", "memory", "idle", "processor", "child"]
        self.next(self.use, foreach="jobs")

    @catch(var="failure")
    @step
    def use(self):
        match self.input:
            case "memory":
                bytearray(200 * MEGABYTE)
                raise ValueError("much")
            case "processor":
                _compute()
            case "child":
                code = "import hashlib; hashlib.pbkdf2_hmac('sha256', b'', b'', 400_000)"
                subprocess.run([sys.executable, "-c", code], check=True)
        self.next(self.alone)

    @step
    def alone(self, inputs):
        self.next(self.by_itself)

    @step
    async def by_itself(self):
        _compute()
        self.pair = [1, 2]
        self.next(self.together, foreach="pair")

    @step
    async def together(self):
        await asyncio.sleep(0.1)
        self.next(self.end_of_pair)

    @step
    def end_of_pair(self, inputs):
        self.next(self.end)

    @step
    def end(self):
        pass


def _compute() -> None:
    began = time.process_time()
    while time.process_time() - began < 0.05:
        hashlib.blake2b(bytes(1000)).digest()


@pytest.fixture(scope="module")
async def engine(tmp_path_factory):
    """An open engine with one worker, for all tests of this file."""
    async with Engine(store=tmp_path_factory.mktemp("facts") / "store", workers=1) as opened:
        yield opened


@pytest.fixture(scope="module")
async def failed(engine):
    """A run of `Naming` that has failed for one item."""
    with pytest.raises(RunFailedError):
        await engine.run(Naming)
    return Flow("Naming", store=engine.settings.store).latest_run


@pytest.fixture(scope="module")
async def used(engine):
    """The tasks of a run of `Using`, by step and item."""
    run = await engine.run(Using)
    return {(task.parent.id, task.item): task for task in run.tasks()}


async def test_a_task_is_named_by_its_item_wherever_it_is(failed):
    """Also one that has failed, and one whose item's `__repr__` is hostile."""
    items = [task.item for task in failed["visit"]]
    assert items == ["City berlin", "<City>", "City rome"]
    [bad] = failed.tasks(status="failed")
    assert bad.item == "<City>"
    assert bad.input.name == "hostile"
    assert [each["item"] for each in data_of(failed["visit"])["tasks"]] == items
    assert data_of(failed)["failure"]["item"] == "<City>"
    shown = list(lines_of(failed["visit"], 0))
    assert [line.rpartition("  ")[2] for line in shown[-3:]] == items
    assert any(line.split() == ["item", "<City>"] for line in lines_of(bad, 0))
    assert any("attempt 1, item <City>" in line for line in lines_of(failed, 0))


async def test_the_log_says_for_which_item_a_task_runs(failed):
    """In full where it starts and fails; if that is left out, in front of what it prints."""
    full = LogRenderer().render(failed.events())
    assert "Task is starting for City berlin.\n" in full
    assert "Task is starting (retry) for <City>.\n" in full
    assert "Task failed for <City>.\n" in full
    brief = LogRenderer(brief=True).render(failed.events())
    [line] = (line for line in brief.splitlines() if line.endswith("seen berlin"))
    assert "/visit/2 City berlin (pid " in line


async def test_tasks_taken_over_keep_their_items(engine, failed):
    """The text comes from the origin's journal, and the value from where it is stored."""
    with pytest.raises(RunFailedError):
        await engine.resume(Naming, origin=failed)
    run = Flow("Naming", store=engine.settings.store).latest_run
    assert run is not None
    cloned = {event.step: event.item for event in run.events(TaskCloned)}
    assert cloned["start"] == ""
    assert cloned["visit"] in {"City berlin", "City rome"}
    taken = run["visit"]["2"]
    assert taken.origin_pathspec is not None
    assert (taken.item, taken.input.name) == ("City berlin", "berlin")
    assert (taken.cpu_seconds, taken.peak_memory) == (None, None)


async def test_the_innermost_item_is_named(engine):
    """Within a foreach in a foreach, of a list that is only passed on, and of a generator's."""
    run = await engine.run(Again)
    assert [task.item for task in run["second"]] == ["'one'", "'two'"]
    assert [task.item for task in run["third"]] == ["0", "10"]
    assert [task.input for task in run["third"]] == [0, 10]
    assert (run["after"].task.item, run["after"].task.input) == ("", None)


async def test_memory_is_that_of_the_task_and_not_of_those_before_it(used):
    """A worker that has needed much once does not say so for ever."""
    much = used["use", "'memory'"].peak_memory
    others = [used["use", f"'{name}'"].peak_memory for name in ("idle", "processor")]
    if sys.platform == "linux":
        assert all(MEGABYTE < other < much - 150 * MEGABYTE for other in others)
    assert much > 200 * MEGABYTE
    assert used["use", "'memory'"].attempts()[0].peak_memory == much


async def test_processor_time_is_that_of_the_task_with_its_child_processes(used):
    """Waiting costs none."""
    assert used["use", "'idle'"].cpu_seconds < 0.04
    assert 0.05 <= used["use", "'processor'"].cpu_seconds < 5
    assert used["use", "'child'"].cpu_seconds > 0.05


async def test_of_an_async_step_it_is_known_if_it_had_the_loop_for_itself(used):
    """The kernel does not know which task of a loop has used what."""
    assert used["by_itself", ""].cpu_seconds >= 0.05
    assert used["by_itself", ""].peak_memory > MEGABYTE
    assert used["together", "1"].cpu_seconds is None
    assert used["together", "2"].peak_memory is None


async def test_events_carry_it(failed):
    """Whoever subscribes need not ask again."""
    begun = [event.item for event in failed.events(TaskStarted) if event.step == "look"]
    assert set(begun) <= {"'a'", "'b'"}


async def test_the_file_of_times_says_what_the_journal_says(engine, monkeypatch):
    """It is as if it were not there, but for the time that reading takes; `verify` checks it."""
    monkeypatch.setattr(run_times, "LEAST_ROWS", 1)
    with pytest.raises(RunFailedError):
        await engine.run(Naming)
    await engine.run(Using)
    for name in ("Naming", "Using"):
        run = Flow(name, store=engine.settings.store).latest_run
        assert run is not None
        written = run._record.tasks.attempts()
        file = engine.settings.store / "flows" / name / run.id / run_times.TIMES
        aside = file.rename(file.with_suffix(".aside"))
        of_journal = Flow(name, store=engine.settings.store).latest_run
        assert of_journal is not None
        attempts = of_journal._record.tasks.attempts()
        assert attempts.columns() == written.columns()
        assert attempts.caught == written.caught
        assert list(attempts.items(attempts.columns())) == list(written.items(written.columns()))
        data = bytearray(aside.read_bytes())
        data[-1] ^= 1
        file.write_bytes(data)
        aside.unlink()
        damaged = verify(Layout.open(engine.settings.store, create=False), name, run.id).damage
        assert [damage.file.rpartition("/")[2] for damage in damaged] == [run_times.TIMES]
        again = Flow(name, store=engine.settings.store)[run.id]
        assert again._record.tasks.attempts().columns() == written.columns()
        file.with_name("summary").unlink()  # as if the engine had been killed between the two
        replayed = Flow(name, store=engine.settings.store)[run.id]
        assert replayed._record.tasks.attempts().columns() == written.columns()
