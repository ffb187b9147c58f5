"""Tasks that pass many artifacts on: the journal says what differs, and every reader finds all."""

from __future__ import annotations

import json
import pickle
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgpack
import pytest

from asyncflow import Engine, Flow, FlowSpec, Parameter, Run, events, step
from asyncflow.cli.command_table import invoke
from asyncflow.errors import AsyncflowError, JournalError, RunFailedError
from asyncflow.events.manifests import is_whole, unpack_told
from asyncflow.events.records import code_of, fields_of, manifest_in
from asyncflow.scheduling import take_over
from asyncflow.store.frames import frame
from asyncflow.store.journal import HEADER, JournalReader
from asyncflow.store.layout import Layout
from asyncflow.store.maintenance.collect import collect
from asyncflow.store.maintenance.remove import remove
from asyncflow.store.maintenance.verify import verify
from asyncflow.testing import Loopback
from tests.support.flipped_byte import flip_byte

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MADE = 40
LONG = "a text that is too long to be copied from record to record " * 3


TOLD = {"change": 3, "left": 0, "each": 5, "right": 1, "end": 0}
"""How many names the record of each step says that says only what differs."""


class Many(FlowSpec):
    """A chain, branches, a foreach and its join that pass many artifacts on."""

    mended = Parameter("mended", default="")
    constant = "of the class"

    @step
    def start(self):
        for number in range(MADE):
            setattr(self, f"made_{number}", number)
        self.long, self.array, self.gone = LONG, bytes(5_000), 1
        self.next(self.change)

    @step
    def change(self):
        del self.gone
        self.made_1 = "other"
        self.items = [0, 1, 2]
        self.next(self.left, self.right)

    @step
    def left(self):
        self.next(self.each, foreach="items")

    @step
    def each(self):
        self.own = self.input
        self.seen = self.long, self.made_1, self.made_2, hasattr(self, "gone"), self.constant
        self.next(self.join)

    @step
    def join(self, inputs):
        self.total = sum(task.own for task in inputs)
        self.merge_artifacts(inputs, exclude=["own"])
        self.next(self.meet)

    @step
    async def right(self):
        self.of_right = self.made_3 + 1
        if self.mended and not Path(self.mended).exists():
            raise ValueError(self.mended)
        self.next(self.meet)

    @step
    def meet(self, inputs):
        self.merge_artifacts(inputs)
        self.next(self.end)

    @step
    def end(self):
        pass


def expected(step: str, index: int = 0) -> dict[str, Any]:
    """What a task of that step passes on."""
    made: dict[str, Any] = {f"made_{number}": number for number in range(MADE)}
    made |= {"mended": "", "constant": "of the class", "long": LONG, "array": bytes(5_000)}
    if step == "start":
        return {**made, "gone": 1}
    made |= {"made_1": "other", "items": [0, 1, 2]}
    seen = {"seen": (LONG, "other", 2, False, "of the class")}
    match step:
        case "each":
            made |= {"own": index, **seen}
        case "join":
            made |= {"total": 3, **seen}
        case "right":
            made |= {"of_right": 4}
        case "meet" | "end":
            made |= {"total": 3, "of_right": 4, **seen}
    return made


def check(run: Run, **more: Any) -> None:
    """Each task has what it should."""
    for found in run:
        for task in found:
            data = {artifact.id: artifact.data for artifact in task}
            assert data == {**expected(found.id, task.index or 0), **more}, task


def changes(store: Path, run: Run) -> list[tuple[str, int]]:
    """The steps whose manifests say only what differs, and how many names they say."""
    path = store / "flows" / run.pathspec / "journal"
    with JournalReader(path) as journal:
        records = [fields_of(record) for _, record, _ in journal.read_from()]
    manifests = [(values[3], manifest_in(values)) for values in records]
    return [(step, unpack_told(each).size) for step, each in manifests if not is_whole(each)]


@pytest.fixture(params=["workers", "loopback"])
async def engine(request, store):
    """Workers that read the journal, and workers that get a replica of it."""
    where = {"workers": 2} if request.param == "workers" else {"executor": Loopback(workers=2)}
    async with Engine(store=store, **where) as opened:
        yield opened


async def test_all_tasks_have_what_was_passed_on(engine, store):
    """A client finds all artifacts; the records of most tasks say one or two."""
    run = await engine.run(Many)
    check(run)
    assert dict(changes(store, run)) == TOLD
    assert not verify(Layout.open(store, create=False)).damage


async def test_events_say_all_artifacts(engine):
    """Live, read back, as JSON, and pickled, whatever their records say."""
    handle = await engine.start(Many)
    live = [event async for event in handle.events(events.TaskSucceeded)]
    run = await handle
    again = [event for event in run.events() if isinstance(event, events.TaskSucceeded)]
    assert again == live
    for event, other in zip(live, again, strict=True):
        task = run[event.step][event.task_id] if event.step == "each" else run[event.step].task
        names = {artifact.id for artifact in task}
        assert {*event.artifacts} == {*other.artifacts} == names
        assert event.artifacts == other.artifacts
        copied = pickle.loads(pickle.dumps(event))
        assert copied.artifacts == event.artifacts
        assert {*json.loads(events.to_json(event))["artifacts"]} == names
        parsed = events.from_json(events.to_json(event))
        assert isinstance(parsed, events.TaskSucceeded)
        assert parsed.artifacts == event.artifacts


async def test_a_resumed_run_takes_over_what_differs(engine, store, tmp_path):
    """Its manifests change those of its own journal, so it needs no other one."""
    mended = tmp_path / "mended"
    with pytest.raises(RunFailedError) as caught:
        await engine.run(Many, mended=str(mended))
    failed = caught.value.run
    mended.touch()
    run = await engine.resume(Many, origin=failed.id)
    check(run, mended=str(mended))
    assert dict(changes(store, run)) == TOLD
    layout = Layout.open(store, create=False)
    remove(layout, [("Many", failed.id)])
    collect(layout)
    check(Flow("Many")[run.id], mended=str(mended))
    assert not verify(layout).damage


async def test_a_resume_from_a_step_changes_what_it_runs_again(engine, store):
    """What follows that step builds on the tasks of the new run."""
    first = await engine.run(Many)
    run = await engine.resume(Many, origin=first.id, step="each")
    check(run)
    assert [told for told in changes(store, run) if told[0] == "each"] == [("each", 5)] * 3


async def test_a_failed_task_keeps_all_that_it_had(engine, tmp_path):
    """What it has inherited, too: its record says only what it has made."""
    with pytest.raises(RunFailedError) as caught:
        await engine.run(Many, mended=str(tmp_path / "never"))
    task = caught.value.run["right"].task
    assert {artifact.id for artifact in task} == {*expected("right")}
    assert task["of_right"].data == 4


class Streaming(FlowSpec):
    """A generator whose tasks inherit many artifacts, and fail until a file is there."""

    mended = Parameter("mended", default="")

    @step
    def start(self):
        for number in range(MADE):
            setattr(self, f"made_{number}", number)
        self.next(self.split)

    @step
    def split(self):
        self.extra = "extra"
        self.numbers = (number for number in range(4))
        self.next(self.each, foreach="numbers")

    @step
    def each(self):
        if self.mended and self.input == 3 and not Path(self.mended).exists():
            raise ValueError(self.mended)
        self.found = self.input + self.made_7, self.extra
        self.next(self.join)

    @step
    def join(self, inputs):
        self.all = sorted(task.found for task in inputs)
        self.kept = inputs[0].made_9
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_tasks_for_what_a_generator_yields_inherit_them(engine, store, tmp_path):
    """They build on the event that announces their items; after a resume, on the new one."""
    mended = tmp_path / "mended"
    with pytest.raises(RunFailedError) as caught:
        await engine.run(Streaming, mended=str(mended))
    mended.touch()
    run = await engine.resume(Streaming, origin=caught.value.run.id)
    assert run.data.all == [(number + 7, "extra") for number in range(4)]
    assert run.data.kept == 9
    assert {artifact.id for artifact in run["each"].task} >= {"made_0", "found", "extra"}
    assert not verify(Layout.open(store, create=False)).damage


def numbers(begun: Path) -> Iterator[int]:
    """Ends after the last task has begun, so that none inherits what the whole step has made."""
    yield from range(4)
    while not begun.exists():
        time.sleep(0.01)


class MakingAndStreaming(FlowSpec):
    """A step makes many artifacts, and yields items; the step after the join fails at first."""

    mended = Parameter("mended")

    @step
    def start(self):
        for number in range(MADE):
            setattr(self, f"made_{number}", number)
        self.numbers = numbers(Path(self.mended + ".begun"))
        self.next(self.each, foreach="numbers")

    @step
    def each(self):
        self.found = self.input
        if self.input == 3:
            Path(self.mended + ".begun").touch()
        if self.input == 2:
            del self.made_2
            self.made_3 = LONG
        self.next(self.join)

    @step
    def join(self, inputs):
        self.all = [task.found for task in inputs]
        if not Path(self.mended).exists():
            raise ValueError(self.mended)
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_a_resume_says_once_per_batch_what_a_generator_had_passed_on(
    store, tmp_path, monkeypatch
):
    """What it has yielded is not taken over, so the first of its tasks say it, not each."""
    monkeypatch.setattr(take_over, "_BATCH_TASKS", 1)
    mended = tmp_path / "mended"
    async with Engine(store=store, workers=2) as engine:
        with pytest.raises(RunFailedError) as caught:
            await engine.run(MakingAndStreaming, mended=str(mended))
        mended.touch()
        run = await engine.resume(MakingAndStreaming, origin=caught.value.run.id)
    path = store / "flows" / run.pathspec / "journal"
    with JournalReader(path) as journal:
        records = [fields_of(record) for _, record, _ in journal.read_from()]
    cloned = [manifest_in(values) for values in records if values[0] == events.TaskCloned.code]
    said = sorted(len(unpack_told(manifest).refs) for manifest in cloned)
    assert len(said) == 5
    assert said[2] < 5 < MADE <= said[3]  # start and the first of its tasks say everything
    assert run.data.all == [0, 1, 2, 3]
    for number, task in enumerate(run["each"]):
        data = {artifact.id: artifact.data for artifact in task}
        made: dict[str, Any] = {f"made_{each}": each for each in range(MADE)} | {"found": number}
        if number == 2:
            made["made_3"] = LONG
            del made["made_2"]
        assert {name: data[name] for name in data if name in made or "made" in name} == made
    assert not verify(Layout.open(store, create=False)).damage


async def test_verify_names_the_tasks_that_build_on_a_damaged_record(store, tmp_path):
    """What they have changed is there, what they had inherited is not: the tasks are affected."""
    async with Engine(store=store) as engine:
        run = await engine.run(Many)
    path = store / "flows" / run.pathspec / "journal"
    with JournalReader(path) as journal:
        at = next(
            at
            for at, record, _ in journal.read_from()
            if code_of(record) == events.TaskSucceeded.code and fields_of(record)[3] == "start"
        )
    flip_byte(path, at + 40)
    report = verify(Layout.open(store, create=False))
    told = {name for damage in report.damage for name in damage.affected}
    steps = {name.removeprefix(f"{run.pathspec}/").partition("/")[0] for name in told}
    assert steps >= {"start", "change", "left", "right", "each"}
    with pytest.raises(AsyncflowError, match=rf"{run.pathspec}.*verify"):
        _ = Flow("Many")[run.id]["each"].task.data.made_2


def forge_base(path: Path, step: str, move: Callable[[int, int], int]) -> None:
    """Let the manifest of a step's task change another record; its checksum is right.

    `move` gets the offset of the task's record and that of the base, and returns the new base.
    """
    with JournalReader(path) as journal:
        at, record = next(
            (at, bytes(record))
            for at, record, _ in journal.read_from()
            if code_of(record) == events.TaskSucceeded.code and fields_of(record)[3] == step
        )
    base = unpack_told(manifest_in(fields_of(record))).base
    was, new = msgpack.packb([base, 0, 0])[:-2], msgpack.packb([move(at, base), 0, 0])[:-2]
    assert len(was) == len(new)
    with path.open("r+b") as file:
        file.seek(at)
        file.write(frame(record.replace(was, new, 1)))


@pytest.mark.parametrize(
    "move",
    [
        pytest.param(lambda at, base: at, id="itself"),
        pytest.param(lambda at, base: at + 300, id="behind it"),
        pytest.param(lambda at, base: base + 9, id="the middle of another record"),
    ],
)
async def test_an_event_names_what_is_damaged_if_its_base_is_no_record(store, move, capsys):
    """Its artifacts cannot be read, those of other tasks can; no command shows a bare reason."""
    async with Engine(store=store) as engine:
        run = await engine.run(Many)
    forge_base(store / "flows" / run.pathspec / "journal", "right", move)
    found = Flow("Many")[run.id]
    told = [event for event in found.events() if isinstance(event, events.TaskSucceeded)]
    (bad,) = (event for event in told if event.step == "right")
    with pytest.raises(JournalError, match=rf"of {run.pathspec}\b.* cannot be read: "):
        _ = bad.artifacts
    assert all(event.artifacts for event in told if event is not bad)
    assert found["left"].task.data.made_2 == 2
    for more in ((), ("--json",)):
        assert invoke(["events", run.pathspec, "--store", str(store), *more]) == 1
        assert run.pathspec in capsys.readouterr().err


async def test_a_resume_names_the_task_that_it_cannot_take_over(store, tmp_path):
    """And the run that has it, whose journal is damaged."""
    async with Engine(store=store) as engine:
        with pytest.raises(RunFailedError) as caught:
            await engine.run(Many, mended=str(tmp_path / "never"))
        failed = caught.value.run
        forge_base(store / "flows" / failed.pathspec / "journal", "left", lambda at, base: at)
        damaged = rf"artifacts of left cannot be taken over from {failed.pathspec}: .* verify"
        with pytest.raises(AsyncflowError, match=damaged):
            await engine.resume(Many, origin=failed.id)


async def test_journals_of_the_first_format_stay_readable(store):
    """They have no such manifests, and differ in nothing else."""
    async with Engine(store=store) as engine:
        run = await engine.run(Streaming)
    path = store / "flows" / run.pathspec / "journal"
    assert path.read_bytes().startswith(HEADER)
    path.write_bytes(HEADER.replace(b"2", b"1") + path.read_bytes()[len(HEADER) :])
    assert Flow("Streaming")[run.id].data.kept == 9
    assert not verify(Layout.open(store, create=False)).damage
