"""A task that waits for others holds its worker: those others have room all the same.

The plan, the driver, the dispatcher and the journal are real, the workers and the clock simulated.
"""

from __future__ import annotations

import asyncio
from itertools import product
from typing import Any

import pytest

from asyncflow.engine.subscription import Channel
from asyncflow.events import RunStarted
from asyncflow.events.packing import pack_event
from asyncflow.events.types import from_microseconds
from asyncflow.flow.graph import Graph
from asyncflow.flow.node import Node
from asyncflow.scheduling.dispatcher import Dispatcher
from asyncflow.scheduling.run_driver import RunDriver
from asyncflow.scheduling.run_identity import RunIdentity
from asyncflow.scheduling.run_services import RunServices
from asyncflow.store.frames import frame
from asyncflow.store.journal import HEADER
from asyncflow.store.local_store import LocalStore
from asyncflow.testing import Act, FakeClockLoop, InlineExecutor, SimulatedExecutor
from asyncflow.values import Status
from asyncflow.workers.program_environment import ProgramEnvironment

ITEMS = 4
FOR_EVER = 600.0  # simulated seconds; each of these runs takes a few


def early(name, after):
    """A join that reads its inputs as they arrive."""
    options = {"arrivals": True}
    return Node(name, (after,), is_join=True, is_async=True, options=options)


def graph_of(*, depth=1, is_async=False, isolated=False, gang=False):
    """Foreachs within each other, each closed by an early join, around a step or a gang."""
    splits = ["start", *(f"split_{level}" for level in range(1, depth))]
    joins = ["end", *(f"join_{level}" for level in range(depth))]
    inner = "open" if gang else "work"
    nodes = [
        Node(name, (following,), foreach="items", is_start=name == "start")
        for name, following in zip(splits, [*splits[1:], inner], strict=True)
    ]
    options: dict[str, Any] = {"isolate": True} if isolated else {}
    if gang:
        nodes += [
            Node("open", ("work",), num_parallel="size"),
            Node("close", (joins[-1],), is_join=True),
        ]
        options["parallel"] = True
    after = "close" if gang else joins[-1]
    nodes.append(Node("work", (after,), is_async=is_async, options=options))
    nodes += [early(joins[level + 1], joins[level]) for level in range(depth)]
    return Graph("Held", [*nodes, Node("end", is_end=True)])


def times(graph):
    """What becomes of a task: those of a step end one after the other."""

    def play(order):
        node = graph[order.step]
        fanout = {"open": 2}.get(order.step, ITEMS if node.foreach else None)
        late = 0.01 * (1 + sum(order.path))
        yields = ITEMS if order.step == "generator" else 0
        return Act(late, fanout, yields=yields, is_async=node.is_async)

    return play


def run(graph, folder, play, *, size, runs=1):
    """Have runs of it end with so many workers; the simulated seconds that this takes."""
    loop = FakeClockLoop()

    async def main():
        disk = InlineExecutor()
        services = RunServices(disk=disk, syncs=disk, grace_seconds=1.0, sync_seconds=1.0)
        dispatcher = Dispatcher(
            services, lambda listener: SimulatedExecutor(listener, play, size=size)
        )
        store = LocalStore.open(folder, create=True)
        drivers = [
            driver_of(graph, number, store, dispatcher, services) for number in range(1, runs + 1)
        ]
        async with asyncio.timeout(FOR_EVER):
            await asyncio.gather(*(driver.drive() for driver in drivers))
        dispatcher.close()
        assert all(driver.finish.status is Status.SUCCEEDED for driver in drivers)

    try:
        loop.run_until_complete(main())
        return loop.time()
    finally:
        loop.close()


def driver_of(graph, number, store, dispatcher, services):
    """The driver of a run that has just entered."""
    run_id = store.create_run("Held")
    stored = store.run("Held", run_id)
    moment = from_microseconds(int(run_id))
    first = pack_event(
        RunStarted(flow="Held", run_id=run_id, seq=1, time=moment, graph=graph.to_data())
    )
    journal = stored.begin_journal()
    journal.write(frame(first))
    nowhere = ProgramEnvironment("", (), {})
    identity = RunIdentity(number, stored, (), int(run_id), nowhere)
    channel = Channel(stored, len(HEADER))
    driver = RunDriver(identity, graph, journal, channel, dispatcher, services, None)
    driver.begin(first)
    dispatcher.enter(driver)
    return driver


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize(("is_async", "isolated", "gang"), list(product([False, True], repeat=3)))
def test_early_joins_leave_room_for_what_they_wait_for(
    tmp_path, size, depth, is_async, isolated, gang
):
    """Whatever that is: a `def` step, an async one, one in a process of its own, or a gang."""
    graph = graph_of(depth=depth, is_async=is_async, isolated=isolated, gang=gang)
    assert run(graph, tmp_path, times(graph), size=size) < FOR_EVER


def retry(seconds, jitter):
    """The option of a step whose tasks are tried once more."""
    waits = {"seconds": seconds, "backoff": 1.0, "max_seconds": None, "jitter": jitter}
    return {"retry": {"times": 1, "on": [], **waits}}


@pytest.mark.parametrize("size", [2, 3])
def test_many_early_joins_that_wait_at_once_share_workers(tmp_path, size):
    """Each begins while a worker is idle; if each held one, none would be left for their items."""
    graph = Graph(
        "Held",
        [
            Node("start", ("split",), foreach="items", is_start=True),
            Node("split", ("work",), foreach="items", options=retry(60.0, 0.9)),
            Node("work", ("inner",), options=retry(300.0, 0.0)),
            early("inner", "outer"),
            early("outer", "end"),
            Node("end", is_end=True),
        ],
    )

    def play(order):
        node, again = graph[order.step], order.key.attempt > 0
        if not again and (order.step == "split" or (order.step == "work" and order.path[-1])):
            return Act(0.01, error="not yet")
        fanout = 12 if order.step == "start" else 2
        return Act(0.01, fanout if node.foreach else None, is_async=node.is_async)

    assert 300.0 < run(graph, tmp_path, play, size=size) < FOR_EVER


GENERATORS = Graph(
    "Held",
    [
        Node("start", ("generator",), foreach="items", is_start=True),
        Node("generator", ("work",), foreach="items"),
        Node("work", ("inner",)),
        Node("inner", ("outer",), is_join=True),
        Node("outer", ("end",), is_join=True),
        Node("end", is_end=True),
    ],
)


def test_a_run_whose_generator_waits_for_those_of_others_goes_on_when_they_end(tmp_path):
    """Nothing else of it runs then, that could remind the dispatcher of it."""
    assert run(GENERATORS, tmp_path, times(GENERATORS), size=1, runs=3) < FOR_EVER
