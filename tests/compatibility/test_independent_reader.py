"""The documents of the format and the code say the same: a reader made from the former agrees."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from dataclasses import astuple
from pathlib import Path

import pytest

from asyncflow import Engine, Flow, FlowSpec, Run, card, catch, current, events, retry, step
from asyncflow.cards import Markdown
from asyncflow.errors import RunCancelledError, RunFailedError
from asyncflow.events.records import code_of
from asyncflow.store.journal import JournalReader
from asyncflow.store.layout import Layout
from asyncflow.store.maintenance.remove import remove
from asyncflow.values import Failure
from tests.support.doc_pages import fences_of

HERE = Path(__file__).parent
VALUES = HERE.parents[1] / "docs" / "reference" / "values.md"
PIECE = 65_536
ODD = (
    b"x" * PIECE + b"\n",  # with its end it is one byte too long
    b"y" * (PIECE - 1) + b"\r\n",  # its end can be cut in two
    b"z" * (PIECE - 1) + "é".encode() * 40_000 + b"\n",
    b"w" * (PIECE - 2) + "€".encode() * 30_000 + b"\n",
    b"v" * (PIECE - 3) + "😀".encode() * 20_000 + b"\n",
    b"\x80" * (3 * PIECE + 5) + b"\n",
    b"\xe2\x82" * PIECE + b"\xff\xfe\x00 \r progress \r done\r\n",
    bytes(range(256)) * 700,
    b"no end",
)
"""What is printed where a cut, a character or a line end comes in an awkward place."""


class Nested(FlowSpec):
    """Foreachs in each other, branches within them, and values of every place and kind."""

    @step
    def start(self):
        self.rows = [3, 1, 2]
        self.text, self.bytes, self.many = "é" * 900, bytes(5_000), list(range(120_000))
        for number in range(20):  # so that records say only what differs
            setattr(self, f"kept_{number}", number)
        self.next(self.row, foreach="rows")

    @step
    def row(self):
        del self.kept_3
        self.kept_4 = "other"
        self.next(self.left, self.right)

    @step
    def left(self):
        print("left of", self.input)
        self.next(self.meet)

    @step
    def right(self):
        print("right of", self.input, file=sys.stderr)
        self.cells = (cell for cell in range(self.input))
        self.next(self.cell, foreach="cells")

    @card
    @step
    def cell(self):
        print("cell", self.input)
        current.card.append(Markdown(f"cell {self.input}"))
        current.card.refresh()
        self.value = self.input
        self.next(self.cells_join)

    @step
    def cells_join(self, inputs):
        self.total = sum(each.value for each in inputs)
        self.next(self.meet)

    @step
    def meet(self, inputs):
        self.total = inputs.cells_join.total
        self.next(self.join)

    @step
    def join(self, inputs):
        self.totals = [each.total for each in inputs]
        self.next(self.end)

    @step
    def end(self):
        pass


class Again(FlowSpec):
    """Attempts that fail, and a failure that is caught."""

    @retry(times=2)
    @step
    def start(self):
        print("attempt", self.attempts())
        if self.attempts() < 2:
            os.kill(os.getpid(), 9) if self.attempts() else self.fail()
        self.next(self.caught)

    def attempts(self):
        """Which attempt it is."""
        from asyncflow import current

        return current.retry_count

    def fail(self):
        """Fail."""
        message = "not yet \udce9"
        raise ValueError(message)

    @catch(var="failure")
    @retry(times=1)
    @step
    def caught(self):
        print("before")
        self.kept = 1
        self.fail()
        self.next(self.end)

    @step
    def end(self):
        pass


class Flood(FlowSpec):
    """Odd bytes in great number, from def and from async tasks."""

    @step
    def start(self):
        for data in ODD:
            os.write(1, data)
            os.write(2, data[::-1])
        self.next(self.one, self.other)

    @step
    async def one(self):
        for number in range(200):
            print("one", number)
            await asyncio.sleep(0)
        self.next(self.join)

    @step
    async def other(self):
        print("é" * 100_000, end="")
        await asyncio.sleep(0)
        print("without an end", end="", file=sys.stderr)
        self.next(self.join)

    @step
    def join(self, inputs):
        self.next(self.end)

    @step
    def end(self):
        pass


class Resumed(FlowSpec):
    """Fails in a later step each time that it is run."""

    runs = 0

    @step
    def start(self):
        print("start ran")
        self.items = ["a", "b", "c"]
        self.next(self.work, foreach="items")

    @step
    def work(self):
        print("work on", self.input)
        self.large = self.input.encode() * 5_000
        self.next(self.join)

    @step
    def join(self, inputs):
        print("join ran")
        assert self.may("join")
        self.next(self.end)

    @step
    def end(self):
        print("end ran")
        assert self.may("end")

    def may(self, name):
        """Whether a step may succeed now."""
        return name in os.environ.get("ASYNCFLOW_TEST_MAY", "")


class Endless(FlowSpec):
    """To be cancelled."""

    @step
    def start(self):
        print("begun")
        self.next(self.wait)

    @step
    async def wait(self):
        print("waiting", flush=True)
        await asyncio.sleep(3600)
        self.next(self.end)

    @step
    def end(self):
        pass


async def make_runs(store):
    """A run of each kind, a chain of resumes, and two runs that were broken off."""
    async with Engine(store=store, workers=2) as engine:
        for flow in (Nested, Again, Flood):
            run = await engine.run(flow, tags=["b", "a", "é"])
        run.replace_tag("a", "changed later")
        handle = await engine.start(Endless)
        async for event in handle.events(events.TaskLogged):
            if event.line == "waiting":
                break
        handle.cancel("it is enough")
        with pytest.raises(RunCancelledError):
            await handle
        with pytest.raises(RunFailedError):
            await engine.run(Resumed)
        for may in ("join", "join end"):
            with pytest.MonkeyPatch.context() as patched:
                patched.setenv("ASYNCFLOW_TEST_MAY", may)
                if may == "join":
                    with pytest.raises(RunFailedError):
                        await engine.resume(Resumed)
                else:
                    await engine.resume(Resumed)
    first = Layout(store).runs("Resumed")[-1]
    remove(Layout(store), [("Resumed", first)])
    for name, kind in (("Nested", events.TaskStarted), ("Again", events.TaskFailed)):
        break_off(store / "flows" / name, kind)


def break_off(folder, kind):
    """A copy of a run whose engine was killed right after an event of this kind."""
    [run] = folder.glob("[0-9]*")
    copy = run.with_name(str(int(run.name) + 1))
    shutil.copytree(run, copy)
    (copy / "summary").unlink()
    (copy / "index").unlink()
    with JournalReader(run / "journal") as journal:
        ends = [end for _, record, end in journal.read_from() if code_of(record) == kind.code]
    os.truncate(copy / "journal", ends[len(ends) // 2])


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """The store, and what the independent reader says of it, run by run."""
    folder = tmp_path_factory.mktemp("independent")
    store = folder / "store"
    asyncio.run(make_runs(store))
    (reader,) = [fence for fence in fences_of(VALUES.read_text()) if fence.title == "reader.py"]
    (folder / "reader.py").write_text(reader.text)
    done = subprocess.run(
        [sys.executable, "-P", str(HERE / "independent_reader.py"), str(store)],
        env={**os.environ, "PYTHONPATH": str(folder)},
        stdout=subprocess.PIPE,
        check=True,
        timeout=120,
    )
    return store, json.loads(done.stdout)


def test_it_finds_the_same_runs_in_the_same_order(told):
    """Flows by name, the newest run first, with status, tags and origin."""
    store, runs = told
    found = [run for flow in Layout(store).flows() for run in Flow(flow, store=store)]
    assert [run["pathspec"] for run in runs] == [run.pathspec for run in found]
    assert [run["status"] for run in runs] == [run.status.value for run in found]
    assert [set(run["tags"]) for run in runs] == [set(run.user_tags) for run in found]
    assert [run["origin"] for run in runs] == [run.origin_run_id for run in found]
    statuses = {"succeeded", "failed", "cancelled", "interrupted"}
    assert {run["status"] for run in runs} == statuses


def test_it_tells_the_same_events(told):
    """Every field of every event, as JSON, each piece of the output with its number."""
    store, runs = told
    kinds = set()
    for run in runs:
        seen = [events.to_json_data(event) for event in Run(run["pathspec"], store=store).events()]
        assert run["events"] == json.loads(json.dumps(seen))
        assert [event["seq"] for event in run["events"]] == list(range(1, len(seen) + 1))
        kinds |= {event["type"] for event in seen}
    assert kinds == {event.__name__ for event in events.event_types()}


def test_it_finds_the_same_tasks(told):
    """Their status, last attempt, path and parents, and how each attempt went."""
    store, runs = told
    for run in runs:
        tasks = {
            f"{task.pathspec.split('/', 2)[2]}": task
            for each in Run(run["pathspec"], store=store)
            for task in each
        }
        assert run["tasks"].keys() == tasks.keys()
        for name, task in tasks.items():
            found = run["tasks"][name]
            assert found["status"] == task.status.value, (run["pathspec"], name)
            assert found["attempt"] == task.attempt
            assert tuple(found["path"]) == task.path
            assert [str(each) for each in found["parents"]] == [each.id for each in task.parents]


def test_it_reads_the_same_output(told):
    """Of each attempt and of tasks that were taken over, from runs that are removed, too."""
    store, runs = told
    seen = set()
    for run in runs:
        for name, found in run["tasks"].items():
            task = Run(run["pathspec"], store=store)[name.split("/")[0]][name.split("/")[1]]
            assert found["output"] == [task.stdout, task.stderr], (run["pathspec"], name)
            attempts = {str(it.number): [it.stdout, it.stderr] for it in task.attempts()}
            assert found["attempts"] == attempts
            seen.add(task.stdout)
    assert "work on b\n" in seen
    assert len(max(seen, key=len)) > 1_000_000


def test_it_reads_the_same_values(told):
    """Inline, from segments and journals, and from blobs."""
    store, runs = told
    places = set()
    for run in runs:
        for name, found in run["tasks"].items():
            task = Run(run["pathspec"], store=store)[name.split("/")[0]][name.split("/")[1]]
            assert found["values"] == {artifact.id: shown(artifact.data) for artifact in task}
            places |= {artifact._ref.place for artifact in task}
    assert places == {0, 1, 2}


def shown(value):
    """A value as text; of a failure that was caught, its fields."""
    return repr(list(astuple(value)) if isinstance(value, Failure) else value)
