"""`@resources`: tasks that do not fit on the machine together do not run together."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from typing import Any

import pytest

from asyncflow import Engine, FlowSpec, Parameter, current, limit, parallel, resources, step
from asyncflow._support.settings import Settings
from asyncflow.errors import FlowError
from asyncflow.events import TaskStarted, TaskSucceeded
from asyncflow.scheduling.machine_resources import Amounts, MachineResources, amounts_of
from tests.support.overlap import most_at_once, most_in_any


def settings_in(store, **more):
    """Three workers; there are two CPUs, 1,000 MB and a GPU for them."""
    return Settings(store=store, workers=3, cpus=2, memory=1000, gpus=1, **more)


@pytest.fixture(scope="module")
async def engine(tmp_path_factory):
    """An open engine with these settings."""
    async with Engine(settings=settings_in(tmp_path_factory.mktemp("resources"))) as opened:
        yield opened


class Waits(FlowSpec):
    """Async tasks that note when they run; a subclass says what they need."""

    @step
    def start(self):
        self.items = list(range(6))
        self.next(self.work, foreach="items")

    @step
    async def work(self):
        await self.wait()
        self.next(self.join)

    async def wait(self):
        began = time.monotonic()
        await asyncio.sleep(0.02)
        self.asked = current.resources
        self.span = began, time.monotonic()

    @step
    def join(self, inputs):
        self.spans = [each.span for each in inputs]
        self.asked = inputs[0].asked
        self.next(self.end)

    @step
    def end(self):
        pass


class OneProcessor(Waits):
    """Two of its tasks fit."""

    @resources(cpu=1)
    @step
    async def work(self):
        await self.wait()
        self.next(self.join)


class TwoProcessors(Waits):
    """One of its tasks fits, as it needs all processors."""

    @resources(cpu="2", memory=10)
    @step
    async def work(self):
        await self.wait()
        self.next(self.join)


class Memory(Waits):
    """Three of its tasks have memory enough."""

    @resources(memory=330, disk=10**9)
    @step
    async def work(self):
        await self.wait()
        self.next(self.join)


class Graphics(Waits):
    """There is one GPU."""

    @limit("graphics", 2)
    @resources(gpu=1)
    @step
    async def work(self):
        await self.wait()
        self.next(self.join)


class Enormous(Waits):
    """It asks for more than there is."""

    @resources(cpu=1, memory=1001)
    @step
    async def work(self):
        await self.wait()
        self.next(self.join)


@pytest.mark.parametrize(
    ("flow", "most"), [(OneProcessor, 2), (TwoProcessors, 1), (Memory, 3), (Graphics, 1)]
)
async def test_as_many_tasks_run_together_as_fit(engine, flow, most):
    """Each amount counts; all tasks run in the end."""

    async def spans():
        return (await engine.run(flow))["join"].task["spans"].data

    assert await most_in_any(spans, most) == most


async def test_runs_share_the_machine(engine):
    """Tasks of one run wait for those of another."""
    both = await asyncio.gather(engine.run(TwoProcessors), engine.run(OneProcessor))
    large, small = (run["join"].task["spans"].data for run in both)
    assert not any(one[0] < other[1] and other[0] < one[1] for one in large for other in small)


async def test_a_step_that_asks_for_more_than_there_is_runs_alone(engine, caplog):
    """It is not refused and does not wait for ever; one warning says so."""
    run = await engine.run(Enormous)
    assert most_at_once(run["join"].task["spans"].data) == 1
    told = [message for message in caplog.messages if "more than the machine has" in message]
    assert len(told) == 1
    assert f"{run.pathspec}/work" in told[0]


async def test_current_has_what_the_step_asks_for(engine):
    """As it is written; nothing for a step without `@resources`."""
    assert (await engine.run(Memory))["join"].task["asked"].data == {"memory": 330, "disk": 10**9}
    assert (await engine.run(Waits))["join"].task["asked"].data == {}


class Crowd(FlowSpec):
    """A task that needs the whole machine, beside many that need a part of it."""

    width = Parameter("width", default=12)

    @step
    def start(self):
        self.next(self.spread, self.large)

    @step
    def spread(self):
        self.items = list(range(self.width))
        self.next(self.small, foreach="items")

    @resources(cpu=1)
    @step
    async def small(self):
        await asyncio.sleep(0.02)
        self.next(self.gathered)

    @step
    def gathered(self, inputs):
        self.next(self.join)

    @resources(cpu=2)
    @step
    async def large(self):
        await asyncio.sleep(0.02)
        self.next(self.join)

    @step
    def join(self, inputs):
        self.next(self.end)

    @step
    def end(self):
        pass


@pytest.mark.parametrize("most", [0, 3])
async def test_small_tasks_do_not_keep_a_large_one_waiting_for_ever(store, most):
    """It begins while small ones still wait, and no small one runs beside it."""
    async with Engine(settings=settings_in(store, max_running_tasks=most)) as engine:
        handle = await engine.start(Crowd)
        seen = [
            (type(event), event.step) async for event in handle.events(TaskStarted, TaskSucceeded)
        ]
    began, ended = (seen.index((kind, "large")) for kind in (TaskStarted, TaskSucceeded))
    assert (TaskStarted, "small") not in seen[began:ended]
    assert (TaskStarted, "small") in seen[ended:]


GANGS_AT_WORK: defaultdict[str, tuple[set[int], asyncio.Event]] = defaultdict(
    lambda: (set(), asyncio.Event())
)
"""The nodes that have begun, by step; the async ones of a gang are on one worker's loop."""


class GangOfThree(FlowSpec):
    """A gang that needs more than there is, beside one that fits."""

    @step
    def start(self):
        self.next(self.large, self.fitting)

    @step
    def large(self):
        self.next(self.three, num_parallel=3)

    @resources(cpu=1)
    @parallel
    @step
    async def three(self):
        await self.wait()
        self.next(self.large_join)

    @step
    def large_join(self, inputs):
        self.spans = [each.span for each in inputs]
        self.next(self.join)

    @step
    def fitting(self):
        self.next(self.two, num_parallel=2)

    @resources(cpu=1)
    @parallel
    @step
    async def two(self):
        await self.wait()
        self.next(self.fitting_join)

    async def wait(self):
        began, gang = time.monotonic(), current.parallel
        here, all_are_here = GANGS_AT_WORK[current.step_name]
        here.add(gang.node_index)
        if len(here) == gang.num_nodes:
            all_are_here.set()
        await all_are_here.wait()
        self.span = began, time.monotonic()

    @step
    def fitting_join(self, inputs):
        self.spans = [each.span for each in inputs]
        self.next(self.join)

    @step
    def join(self, inputs):
        self.spans = [each.spans for each in inputs]
        self.next(self.end)

    @step
    def end(self):
        pass


async def test_a_gang_asks_for_what_all_its_nodes_need(engine):
    """Each gang runs by itself, and its nodes together."""
    three, two = (await engine.run(GangOfThree)).data.spans
    assert most_at_once(three) == 3
    assert most_at_once(two) == 2
    assert most_at_once([*three, *two]) == 3


# --- the line -------------------------------------------------------------------------------------


class Waiter:
    """A run."""

    def __init__(self, number):
        self.number, self.pathspec = number, f"Flow/{number}"


@pytest.fixture
def line():
    """A machine with four CPUs, and the runs that were woken."""
    woken: list[Any] = []
    return MachineResources(Amounts(cpu=4), woken.append), woken


FOUR, ONE = Amounts(cpu=4), Amounts(cpu=1)


def test_who_waits_begins_before_who_came_later(line):
    """A small task that would fit waits behind a large one; each is woken in its turn."""
    there, woken = line
    first, large, small = map(Waiter, range(3))
    assert there.may_take(first, "a", ONE)
    there.take(first, "a", ONE)
    assert not there.may_take(large, "b", FOUR)
    assert not there.may_take(small, "c", ONE)
    there.give_back(ONE)
    assert woken == [large]
    assert there.first_of(large) == "b"
    assert there.may_take(large, "b", FOUR)
    there.take(large, "b", FOUR)
    assert woken == [large, small]
    assert not there.may_take(small, "c", ONE)
    there.give_back(FOUR)
    assert there.may_take(small, "c", ONE)


def test_who_cannot_begin_for_another_reason_lets_others_go_first(line):
    """It leaves the line, and the next one is woken."""
    there, woken = line
    first, large, small = map(Waiter, range(3))
    there.take(first, "a", ONE)
    there.may_take(large, "b", FOUR)
    there.may_take(small, "c", ONE)
    there.leave(large, "b")
    assert woken == [small]
    assert there.may_take(small, "c", ONE)
    there.end(small)
    assert not there


def test_amounts_are_numbers_and_what_is_not_named_is_not_counted():
    """Texts of numbers are read; other resources are not counted."""
    assert amounts_of({"cpu": "2", "memory": 10.5, "disk": 3}) == Amounts(2.0, 0.0, 10.5)
    assert amounts_of({"cpu": "<a lambda>", "gpu": None}) is None
    assert amounts_of(None) is None


@pytest.mark.parametrize("given", [{"cpu": -1}, {"memory": "much"}, {"gpu": True}, {"cpu": 1e400}])
def test_an_amount_that_cannot_be_is_refused(given):
    """Where the decorator stands."""
    with pytest.raises(FlowError, match=r"@resources takes a number as `\w+`, zero or more"):
        resources(**given)
