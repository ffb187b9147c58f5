"""A foreach over a generator: its tasks begin while it yields, and it does not run far ahead."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from pathlib import Path

import pytest

from asyncflow import Engine, FlowSpec, Parameter, current, limit, retry, step
from asyncflow._support.settings import Settings
from asyncflow.errors import FlowError, RunCancelledError, RunFailedError
from asyncflow.events import TaskCloned, TaskFailed, TaskStarted, TaskSucceeded, TaskYielded
from asyncflow.scheduling import report_router
from asyncflow.workers.messages import ITEMS_AHEAD

_MOST_SECONDS = 60.0


@pytest.fixture(scope="module")
async def engine(tmp_path_factory):
    """An engine with a single worker, so that everything has to share it."""
    async with Engine(store=tmp_path_factory.mktemp("streams"), workers=1) as opened:
        yield opened


def wait_for(file):
    """Return once the file is there."""
    until = time.monotonic() + _MOST_SECONDS
    while not Path(file).exists():
        assert time.monotonic() < until, f"{file} does not come"
        time.sleep(0.002)


class Answered(FlowSpec):
    """Each item comes only when the task for the item before has run."""

    folder = Parameter("folder", type=str)

    @step
    def start(self):
        self.before = "set before"
        self.items = self.answered(4)
        self.next(self.work, foreach="items")

    def answered(self, count):
        """Yield a number whenever the one before has been answered."""
        for number in range(count):
            yield number
            wait_for(f"{self.folder}/{number}")

    @step
    def work(self):
        Path(self.folder, str(self.input)).touch()
        self.seen = self.index, self.input, self.before, hasattr(self, "items")
        self.next(self.join)

    @step
    def join(self, inputs):
        self.all_seen = [each.seen for each in inputs]
        self.next(self.end)

    @step
    def end(self):
        pass


class AsyncAnswered(Answered):
    """The same with an async generator; its tasks are async, too."""

    @step
    async def start(self):
        self.before = "set before"
        self.items = self.answered_later(4)
        self.next(self.work, foreach="items")

    async def answered_later(self, count):
        """Yield a number whenever the one before has been answered."""
        for number in range(count):
            yield number
            while not Path(self.folder, str(number)).exists():  # noqa: ASYNC110 - of another process
                await asyncio.sleep(0.002)

    @step
    async def work(self):
        Path(self.folder, str(self.input)).touch()
        self.seen = self.index, self.input, self.before, hasattr(self, "items")
        self.next(self.join)


class AsyncToDef(AsyncAnswered):
    """An async generator whose tasks are `def` steps."""

    @step
    def work(self):
        Path(self.folder, str(self.input)).touch()
        self.seen = self.index, self.input, self.before, hasattr(self, "items")
        self.next(self.join)


class PlainInAsync(AsyncAnswered):
    """A plain generator in an async step."""

    @step
    async def start(self):
        self.before = "set before"
        self.items = self.answered(4)
        self.next(self.work, foreach="items")


@pytest.mark.parametrize("flow", [Answered, AsyncAnswered, AsyncToDef, PlainInAsync])
async def test_tasks_begin_while_the_generator_yields(engine, tmp_path, flow):
    """With a single worker too, and whichever of both is async: nothing waits for itself."""
    run = await engine.run(flow, folder=str(tmp_path))
    assert run.data.all_seen == [(number, number, "set before", False) for number in range(4)]
    assert run["start"].task.data.items == [0, 1, 2, 3]


class Curious(Answered):
    """Its tasks look for the list of items."""

    @step
    def work(self):
        Path(self.folder, str(self.input)).touch()
        said = ""
        try:
            list(self.items)
        except AttributeError as error:
            said = str(error)
        self.seen = self.index, self.input, said, False
        self.next(self.join)


async def test_a_task_that_looks_for_the_list_is_told_that_there_is_none(engine, tmp_path):
    """Its own item is what it can have."""
    run = await engine.run(Curious, folder=str(tmp_path))
    assert len(run.data.all_seen) == 4
    for _, _, text, _ in run.data.all_seen:
        assert "while a generator yields, there is no list of its items" in text


class Nested(FlowSpec):
    """A generator in each task of a generator, all answered one by one."""

    folder = Parameter("folder", type=str)

    @step
    def start(self):
        self.rows = (f"{row}" for row in range(3))
        self.next(self.row, foreach="rows")

    @step
    def row(self):
        self.row_name = self.input
        self.cells = self.answered(3)
        self.next(self.cell, foreach="cells")

    def answered(self, count):
        """Yield a name whenever the one before has been answered."""
        for number in range(count):
            yield f"{self.row_name}-{number}"
            wait_for(f"{self.folder}/{self.row_name}-{number}")

    @step
    def cell(self):
        Path(self.folder, self.input).touch()
        self.seen = [item for _, _, item in self.foreach_stack()]
        self.next(self.join)

    @step
    def join(self, inputs):
        self.row_seen = [each.seen for each in inputs]
        self.next(self.all)

    @step
    def all(self, inputs):
        self.all_seen = [each.row_seen for each in inputs]
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_generators_within_tasks_of_a_generator(engine, tmp_path):
    """Each holds a worker, and there are others for the tasks of its items."""
    run = await engine.run(Nested, folder=str(tmp_path))
    assert run.data.all_seen == [[[f"{row}", f"{row}-{at}"] for at in range(3)] for row in range(3)]


class EmptyWithin(Answered):
    """Each task for an item has a foreach over nothing, whose join the generator waits for."""

    @step
    def work(self):
        self.nothing = []
        self.next(self.never, foreach="nothing")

    @step
    def never(self):
        self.next(self.within)

    @step
    def within(self, inputs):
        Path(self.folder, str(self.input)).touch()
        self.seen = self.index, self.input, f"{len(inputs)} inputs", False
        self.next(self.join)


async def test_a_foreach_over_nothing_within_tasks_of_a_generator(engine, tmp_path):
    """Its join, which has no inputs, runs while the generator still yields."""
    run = await engine.run(EmptyWithin, folder=str(tmp_path))
    assert run.data.all_seen == [(number, number, "0 inputs", False) for number in range(4)]


class Far(FlowSpec):
    """Each task notes how far the generator is ahead of it."""

    file = Parameter("file", type=str)

    @step
    def start(self):
        self.items = self.noted(1500)
        self.next(self.work, foreach="items")

    def noted(self, count):
        """Yield numbers, and append a byte for each to a file."""
        with open(self.file, "ab", buffering=0) as file:  # noqa: PTH123 - in a step
            for number in range(count):
                file.write(b".")
                yield number

    @step
    def work(self):
        self.ahead = Path(self.file).stat().st_size - self.input
        self.next(self.join)

    @step
    def join(self, inputs):
        self.most = max(each.ahead for each in inputs)
        self.count = len(inputs)
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_a_generator_does_not_run_far_ahead(engine, tmp_path):
    """It waits for tasks to begin; some of these are queued at a worker."""
    run = await engine.run(Far, file=str(tmp_path / "yielded"))
    assert run.data.count == 1500
    assert run.data.most <= ITEMS_AHEAD + 200


class Again(FlowSpec):
    """A generator that breaks in its first attempt, after tasks for its items have run."""

    folder = Parameter("folder", type=str)
    how = Parameter("how", default="raise")
    second = Parameter("second", default=100)

    @retry(times=1, seconds=0)
    @step
    def start(self):
        self.items = self.breaking()
        self.next(self.work, foreach="items")

    def breaking(self):
        """Yield numbers; the first time, break after 70."""
        first = not Path(self.folder, "again").exists()
        for number in range(100 if first else self.second):
            if first and number == 70:
                wait_for(f"{self.folder}/5")
                Path(self.folder, "again").touch()
                break_off(self.how)
            yield number

    @step
    def work(self):
        with Path(self.folder, str(self.input)).open("a") as file:
            file.write("x")
        self.x = self.input
        self.next(self.join)

    @step
    def join(self, inputs):
        self.all = [each.x for each in inputs]
        self.next(self.end)

    @step
    def end(self):
        pass


def break_off(how):
    """Raise, or kill this worker."""
    import os
    import signal

    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    raise ValueError("it breaks")


@pytest.mark.parametrize("how", ["raise", "kill"])
async def test_another_attempt_goes_on_with_the_same_items(engine, tmp_path, how):
    """Items that were announced keep their tasks, which do not run again."""
    run = await engine.run(Again, folder=str(tmp_path), how=how)
    assert run.data.all == list(range(100))
    assert {(tmp_path / str(number)).read_text() for number in range(100)} == {"x"}
    assert run["start"].task.data.items == list(range(100))


async def test_another_attempt_must_not_yield_fewer_items(engine, tmp_path):
    """Tasks for those that are missing may have run."""
    with pytest.raises(RunFailedError, match=r"has yielded 3 items, an earlier one \d\d:"):
        await engine.run(Again, folder=str(tmp_path), second=3)


class Different(Again):
    """A generator whose second attempt yields another item, and goes on as `how` says."""

    @retry(times=1, seconds=0)
    @step
    def start(self):
        self.items = self.different()
        self.next(self.work, foreach="items")

    def different(self):
        """Yield numbers; the second time, 41 is another one."""
        again = Path(self.folder, "again").exists()
        for number in range(70):
            yield -1 if again and number == 41 else number
        if not again:
            wait_for(f"{self.folder}/5")
            Path(self.folder, "again").touch()
            break_off("raise")
        if self.how == "goes on":
            yield from range(70, 10_000_000)
        elif self.how == "waits":
            time.sleep(_MOST_SECONDS)


class AsyncDifferent(Different):
    """The same with an async generator."""

    @retry(times=1, seconds=0)
    @step
    async def start(self):
        self.items = self.different_later()
        self.next(self.work, foreach="items")

    async def different_later(self):
        """Yield what the other one does."""
        for number in self.different():
            yield number
            await asyncio.sleep(0)
        if self.how == "waits, async":
            await asyncio.sleep(_MOST_SECONDS)


@pytest.mark.parametrize(
    ("flow", "how"),
    [
        (Different, "ends"),
        (Different, "goes on"),
        (Different, "waits"),
        (AsyncDifferent, "ends"),
        (AsyncDifferent, "goes on"),
        (AsyncDifferent, "waits, async"),
    ],
)
async def test_another_attempt_must_not_yield_other_items(engine, tmp_path, flow, how):
    """The error names the first of them, and nothing after it is announced or run."""
    began = time.monotonic()
    told = "item 41 is not the one that an earlier attempt has yielded"
    with pytest.raises(RunFailedError, match=told) as caught:
        await engine.run(flow, folder=str(tmp_path), how=how)
    assert time.monotonic() - began < _MOST_SECONDS / 2
    seen = list(caught.value.run.events())
    failures = [each for each in seen if isinstance(each, TaskFailed) and each.step == "start"]
    assert failures[-1].exception_type == "asyncflow.errors.TransitionError"
    assert not failures[-1].will_retry
    assert 41 < sum(each.count for each in seen if isinstance(each, TaskYielded)) <= 70


class Mended(Again):
    """Fails in its only attempt."""

    @step
    def start(self):
        self.items = self.breaking()
        self.next(self.work, foreach="items")


async def test_a_resume_takes_over_the_tasks_of_a_broken_generator(engine, tmp_path):
    """The generator yields again from the beginning, and tasks that had finished are not run."""
    with pytest.raises(RunFailedError) as caught:
        await engine.run(Mended, folder=str(tmp_path))
    finished = {task.id for task in caught.value.run["work"] if task.successful}
    run = await engine.resume(Mended, origin=caught.value.run)
    assert run.data.all == list(range(100))
    cloned = {each.origin_task_id for each in run.events() if isinstance(each, TaskCloned)}
    assert cloned == finished
    assert len(finished) >= 1


class Changing(Again):
    """Fails in its only attempt, and yields another first item in each run."""

    @step
    def start(self):
        self.items = self.changing()
        self.next(self.work, foreach="items")

    def changing(self):
        """Yield a text, and what `breaking` does."""
        yield f"run {current.run_id}"
        yield from self.breaking()

    @step
    def work(self):
        Path(self.folder, str(self.index)).touch()
        self.x = self.input
        self.next(self.join)


async def test_a_resume_does_not_take_over_what_was_done_for_another_item(engine, tmp_path):
    """Its task is run again, and those of the items that are the same are not."""
    with pytest.raises(RunFailedError) as caught:
        await engine.run(Changing, folder=str(tmp_path))
    finished = {task.id for task in caught.value.run["work"] if task.successful}
    other = next(task.id for task in caught.value.run["work"] if task.index == 0)
    run = await engine.resume(Changing, origin=caught.value.run)
    assert run.data.all == [f"run {run.id}", *range(100)]
    cloned = {each.origin_task_id for each in run.events() if isinstance(each, TaskCloned)}
    assert other in finished
    assert cloned == finished - {other}


class Late(Again):
    """Its generator breaks in the first run; in the second one, its step fails before it yields."""

    @step
    def start(self):
        if Path(self.folder, "again").exists() and not Path(self.folder, "mended").exists():
            raise ValueError("it breaks before it yields")
        self.items = self.breaking()
        self.next(self.work, foreach="items")


async def test_a_resume_goes_back_to_the_run_whose_generator_has_yielded(engine, tmp_path):
    """A run in between, whose generator has not begun, loses nothing."""
    with pytest.raises(RunFailedError) as first:
        await engine.run(Late, folder=str(tmp_path))
    finished = {task.id for task in first.value.run["work"] if task.successful}
    with pytest.raises(RunFailedError, match="before it yields") as second:
        await engine.resume(Late, origin=first.value.run)
    (tmp_path / "mended").touch()
    run = await engine.resume(Late, origin=second.value.run)
    assert run.data.all == list(range(100))
    cloned = {each.origin_task_id for each in run.events() if isinstance(each, TaskCloned)}
    assert cloned == finished
    assert finished


class Twice(Again):
    """Its generator breaks in two runs: after 70 items, and before the second one."""

    @step
    def start(self):
        self.items = self.breaking_twice()
        self.next(self.work, foreach="items")

    def breaking_twice(self):
        """Yield a hundred numbers in the third run."""
        for number in range(100):
            yield number
            if number == 0 and Path(self.folder, "again").exists():
                if not Path(self.folder, "mended").exists():
                    break_off("raise")
            elif number == 69 and not Path(self.folder, "mended").exists():
                wait_for(f"{self.folder}/5")
                Path(self.folder, "again").touch()
                break_off("raise")


async def test_a_resume_of_a_resume_takes_over_what_the_first_run_had_finished(engine, tmp_path):
    """Even if the generator has not come so far in the second run."""
    with pytest.raises(RunFailedError) as first:
        await engine.run(Twice, folder=str(tmp_path))
    finished = {task.data.x for task in first.value.run["work"] if task.successful}
    assert len(finished) > 1
    with pytest.raises(RunFailedError) as second:
        await engine.resume(Twice, origin=first.value.run)
    (tmp_path / "mended").touch()
    run = await engine.resume(Twice, origin=second.value.run)
    assert run.data.all == list(range(100))
    assert {(tmp_path / str(number)).read_text() for number in finished} == {"x"}


class Endless(FlowSpec):
    """Its generators never end."""

    @step
    def start(self):
        self.next(self.plain, self.later)

    @step
    def plain(self):
        self.items = itertools.count()
        self.next(self.work, foreach="items")

    @step
    async def later(self):
        self.items = endless()
        self.next(self.async_work, foreach="items")

    @step
    def work(self):
        self.next(self.join)

    @step
    async def async_work(self):
        self.next(self.async_join)

    @step
    def join(self, inputs):
        self.next(self.both)

    @step
    def async_join(self, inputs):
        self.next(self.both)

    @step
    def both(self, inputs):
        self.next(self.end)

    @step
    def end(self):
        pass


async def endless():
    """Yield numbers."""
    for number in itertools.count():
        yield number


async def test_a_run_whose_generators_never_end_is_cancelled(engine):
    """They are stopped like any task, also while they wait for their tasks."""
    handle = await engine.start(Endless)
    seen = set()
    async for event in handle.events(TaskYielded):
        if event.index > ITEMS_AHEAD:
            seen.add(event.step)
        if len(seen) == 2:
            break
    handle.cancel()
    with pytest.raises(RunCancelledError):
        await handle
    assert handle.run.status == "cancelled"


async def test_a_finished_generator_is_taken_over(engine, tmp_path):
    """A resume after it reads the items from the whole list, and asks for none again."""
    run = await engine.run(Answered, folder=str(tmp_path))
    resumed = await engine.resume(Answered, origin=run, step="work")
    assert resumed.data.all_seen == run.data.all_seen
    begun = [each.step for each in resumed.events() if isinstance(each, TaskStarted)]
    assert "start" not in begun


async def test_the_journal_tells_the_items_as_they_come(engine, tmp_path):
    """The events name all items once, in order, before the event of the task's end."""
    run = await engine.run(Answered, folder=str(tmp_path))
    told = [each for each in run.events() if isinstance(each, TaskYielded)]
    assert [(each.index, each.count) for each in told] == [(0, 1), (1, 1), (2, 1), (3, 1)]
    assert [bool(each.artifacts) for each in told] == [True, False, False, False]
    ended = next(e for e in run.events() if isinstance(e, TaskSucceeded) and e.step == "start")
    assert ended.fanout == 4
    assert told[-1].seq < ended.seq


class Shared(Answered):
    """A generator and its tasks need the same place of a limit."""

    @limit("streams-of-items", 1)
    @step
    def start(self):
        self.items = iter(range(600))
        self.next(self.work, foreach="items")

    @limit("streams-of-items", 1)
    @step
    def work(self):
        self.seen = self.input
        self.next(self.join)


async def test_a_generator_that_keeps_its_tasks_from_running_goes_on(engine):
    """Then it is as if its items came as a list."""
    run = await engine.run(Shared, folder="")
    assert run.data.all_seen == list(range(600))


async def test_a_run_with_one_task_at_a_time(engine, tmp_path):
    """A task whose generator yields does not count, as others are needed for its end."""
    run = await engine.options(max_running_tasks=1).run(Answered, folder=str(tmp_path))
    assert len(run.data.all_seen) == 4


class ManyShort(FlowSpec):
    """Many tasks of which each yields a few items."""

    @step
    def start(self):
        self.groups = list(range(60))
        self.next(self.group, foreach="groups")

    @step
    def group(self):
        self.items = iter(range(3))
        self.next(self.each, foreach="items")

    @step
    def each(self):
        self.next(self.group_done)

    @step
    def group_done(self, inputs):
        self.next(self.join)

    @step
    def join(self, inputs):
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_many_short_generators_share_the_workers_in_their_place(engine, monkeypatch):
    """A worker that stands in for a held one stays for the next, which comes at once."""
    monkeypatch.setattr(report_router, "_SPARE_SECONDS", 60.0)  # on a busy machine, too
    run = await engine.run(ManyShort)
    workers = {event.pid for event in run.events() if isinstance(event, TaskStarted)}
    assert len(workers) < 30  # one for each generator would be more than 60


class AsyncInDef(FlowSpec):
    """An async generator in a `def` step."""

    @step
    def start(self):
        self.items = later()
        self.next(self.end_of_item, foreach="items")

    @step
    def end_of_item(self):
        self.next(self.join)

    @step
    def join(self, inputs):
        self.next(self.end)

    @step
    def end(self):
        pass


async def later():
    """Yield a number."""
    yield 1


async def test_only_an_async_step_goes_through_an_async_generator(engine):
    """The error says what to write."""
    with pytest.raises(RunFailedError, match="make the step `async def start`"):
        await engine.run(AsyncInDef)


# --- a join that reads its inputs as they arrive ------------------------------------------------


class Arriving(Answered):
    """Each item comes only when the join has read the task for the item before."""

    @step
    def work(self):
        self.square = self.input**2
        self.next(self.join)

    @step
    async def join(self, inputs):
        self.early = refusal(inputs)
        self.order = []
        async for each in inputs:
            self.order.append((each.index, each.input, each.square))
            Path(self.folder, str(each.index)).touch()
        self.squares = [each.square for each in inputs]
        self.count, self.last = len(inputs), inputs[-1].input
        self.twice = [each.index async for each in inputs]
        self.merge_artifacts(inputs, include=["before"])
        self.next(self.end)


def refusal(inputs):
    """What is said to a step that asks for all inputs too early."""
    try:
        return f"{len(inputs)}"
    except FlowError as error:
        return str(error)


class ArrivingAtAsync(Arriving):
    """The same from async steps and an async generator."""

    @step
    async def start(self):
        self.before = "set before"
        self.items = AsyncAnswered.answered_later(self, 4)  # type: ignore[arg-type] # it needs no more
        self.next(self.work, foreach="items")

    @step
    async def work(self):
        self.square = self.input**2
        self.next(self.join)


@pytest.mark.parametrize("flow", [Arriving, ArrivingAtAsync])
async def test_an_async_join_reads_its_inputs_as_they_arrive(engine, tmp_path, flow):
    """It begins with the first one; when the last has come, it has all of them as any join has."""
    data = (await engine.run(flow, folder=str(tmp_path))).data
    assert data.order == [(number, number, number**2) for number in range(4)]
    assert (data.squares, data.count, data.last) == ([0, 1, 4, 9], 4, 3)
    assert data.twice == [0, 1, 2, 3]
    assert data.before == "set before"
    assert "first go through `async for input in inputs`" in data.early


class Unordered(FlowSpec):
    """Tasks of a list that end in the reverse order, and a join that reads some and stops."""

    folder = Parameter("folder", type=str)
    fails = Parameter("fails", default=False)

    @step
    def start(self):
        self.items = [0, 1, 2]
        self.next(self.work, foreach="items")

    @step
    async def work(self):
        while self.input < 2 and not Path(self.folder, str(self.input + 1)).exists():  # noqa: ASYNC110 - of another process
            await asyncio.sleep(0.002)
        if self.fails and self.input == 0:
            raise ValueError(self.input)
        self.x = self.input
        self.next(self.join)

    @retry(times=1, seconds=0)
    @step
    async def join(self, inputs):
        self.order = []
        async for each in inputs:
            self.order.append(each.x)
            Path(self.folder, str(each.x)).touch()
            if each.x == 1:
                if current.attempt == 0 and not self.fails:
                    Path(self.folder, "order").write_text(f"{self.order}")
                    raise ValueError("once more")
                break
        self.attempt = current.attempt
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_inputs_come_in_the_order_in_which_their_tasks_end(engine, tmp_path):
    """Another attempt reads those again that were there; a join that stops early waits for all."""
    run = await engine.run(Unordered, folder=str(tmp_path))
    assert (tmp_path / "order").read_text() == "[2, 1]"
    assert (run.data.attempt, run.data.order[-1]) == (1, 1)
    assert [task.successful for task in run["work"]] == [True] * 3


@pytest.mark.parametrize("on_failure", ["cancel", "finish"])
async def test_a_join_ends_whose_inputs_will_not_all_arrive(tmp_path, on_failure):
    """It is stopped when one of them has failed, even if running tasks may finish."""
    settings = {"store": tmp_path / "store", "workers": 1, "on_failure": on_failure}
    async with Engine(settings=Settings(**settings)) as engine:
        with pytest.raises(RunFailedError) as caught:
            await engine.run(Unordered, folder=str(tmp_path), fails=True)
    assert caught.value.failure.step == "work"
    assert caught.value.run["join"].task.status == "cancelled"


async def test_a_resume_runs_an_early_join_again(engine, tmp_path):
    """It gets what was taken over as it gets what arrives."""
    with pytest.raises(RunFailedError) as caught:
        await engine.run(Mendable, folder=str(tmp_path))
    (tmp_path / "mended").touch()
    run = await engine.resume(Mendable, origin=caught.value.run)
    assert sorted(run.data.order) == list(range(20))
    again = await engine.resume(Mendable, origin=run, step="end")
    assert again.data.order == run.data.order
    assert len(list(again["work"])) == 20


class Mendable(FlowSpec):
    """One of its tasks fails until a file is there."""

    folder = Parameter("folder", type=str)

    @step
    def start(self):
        self.items = iter(range(20))
        self.next(self.work, foreach="items")

    @step
    def work(self):
        if self.input == 11 and not Path(self.folder, "mended").exists():
            raise ValueError
        self.x = self.input
        self.next(self.join)

    @step
    async def join(self, inputs):
        self.order = [each.x async for each in inputs]
        self.next(self.end)

    @step
    def end(self):
        pass


class Forking(FlowSpec):
    """The child that a generator forks goes on in it, as its parent does."""

    @step
    def start(self):
        self.items = self.forked()
        self.next(self.work, foreach="items")

    def forked(self):
        for number in range(3):
            child = os.fork()
            if child:
                yield number, os.waitpid(child, 0)[1]
            else:
                yield number, -1

    @step
    def work(self):
        self.seen = self.input
        self.next(self.join)

    @step
    def join(self, inputs):
        self.seen = [each.seen for each in inputs]
        self.next(self.end)

    @step
    def end(self):
        pass


class ForkingAsync(Forking):
    @step
    async def start(self):
        self.items = self.forked_async()
        self.next(self.work, foreach="items")

    async def forked_async(self):
        for each in self.forked():
            yield each


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.parametrize("flow", [Forking, ForkingAsync])
async def test_a_child_that_a_generator_forks_yields_nothing(engine, flow):
    """It ends where the step's code ends: with the first item that it would yield."""
    run = await engine.run(flow)
    assert run.data.seen == [(0, 0), (1, 0), (2, 0)]
