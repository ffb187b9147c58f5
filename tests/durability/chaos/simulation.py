"""The real plan, driver, dispatcher and journal, with simulated workers and a clock that skips.

A *world* is made from a seed: a random program, how long its tasks take, which workers die, when
the engine crashes (before, within, or after a write to a journal) and when it is cancelled. What is
left is resumed, at last without faults, and the promises are checked. The same seed is the same
world:

    python -m tests.durability.chaos.simulation SEED
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from array import array
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple
from zlib import crc32

from asyncflow import events
from asyncflow.client.replay import Replay
from asyncflow.engine.subscription import Channel
from asyncflow.events import RunStarted
from asyncflow.events.packing import pack_event, unpack_events
from asyncflow.events.selection import EventFilter
from asyncflow.events.types import Event, from_microseconds
from asyncflow.flow.graph import Graph
from asyncflow.scheduling.dispatcher import Dispatcher
from asyncflow.scheduling.resume import OriginRun
from asyncflow.scheduling.run_driver import RunDriver
from asyncflow.scheduling.run_identity import RunIdentity
from asyncflow.scheduling.run_services import RunServices
from asyncflow.store.frames import frame
from asyncflow.store.journal import HEADER, JournalReader, JournalWriter
from asyncflow.store.local_store import LocalStore
from asyncflow.store.maintenance import verify
from asyncflow.store.run_index import Summary
from asyncflow.store.task_table import INDEX
from asyncflow.testing import Act, FakeClockLoop, InlineExecutor, SimulatedExecutor
from asyncflow.values import Status
from asyncflow.workers.program_environment import ProgramEnvironment
from tests.durability.chaos.reference import Reference, indexes
from tests.durability.chaos.simulated_programs import (
    TIMEOUT,
    Expected,
    Key,
    graph_of,
    random_program,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from asyncflow.workers.messages import StartTask
    from tests.durability.chaos.programs import Step

_SECONDS = (0.0, 0.0, 0.0001, 0.001, 0.003, 0.03, 0.3, 2 * TIMEOUT)
_TOO_LONG = 50_000.0  # simulated seconds: every retry that is waited for, and far more
_ROUNDS_WITH_FAULTS = 3

HandingOn = events.TaskSucceeded | events.TaskCloned | events.TaskYielded


# --- faults ---------------------------------------------------------------------------------------


class Crashed(OSError):
    """What is left of an engine that has crashed hears this of the disk."""


class Disk(InlineExecutor):
    """Takes its time, and crashes the engine before, within or after one of its writes."""

    def __init__(self, loop: asyncio.AbstractEventLoop, random: Random, crash_at: int) -> None:
        self._loop, self._random, self._left = loop, random, crash_at
        self.crashed = False
        self._untold: set[Future[Any]] = set()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Do it now, and tell of it later; or crash."""
        told: Future[Any] = Future()
        if self.crashed:
            told.set_exception(Crashed())
            return told
        self._left -= 1
        self._untold.add(told)
        if self._left == 0:
            self._crash(fn, *args)
            return told
        done = super().submit(fn, *args, **kwargs)
        wait = self._random.choice([0.0, 0.0, 0.0002, 0.01])
        self._loop.call_later(wait, self._tell, done, told)
        return told

    def _tell(self, done: Future[Any], told: Future[Any]) -> None:
        if self.crashed:
            return
        self._untold.remove(told)
        error = done.exception()
        if error is not None:
            told.set_exception(error)
        else:
            told.set_result(done.result())

    def release(self) -> None:
        """Let what is left of the engine end."""
        for told in self._untold:
            told.set_exception(Crashed())

    def _crash(self, fn: Callable[..., Any], *args: Any) -> None:
        self.crashed = True
        self._loop.stop()
        writer = getattr(fn, "__self__", None)
        how = self._random.choice(["before", "torn", "after"])
        if how == "after":
            fn(*args)
        elif how == "torn" and args and isinstance(writer, JournalWriter):
            cut = self._random.randrange(len(args[0]))
            with writer.path.open("ab") as file:
                file.write(args[0][:cut])


class Round(NamedTuple):
    """What came of running, or of resuming, once."""

    run_id: str
    status: Status | None
    """None after a crash."""


@dataclass
class World:
    """All that happens to one program."""

    seed: int
    store: LocalStore

    def __post_init__(self) -> None:
        """Draw the program."""
        self.random = Random(self.seed)
        self.program = random_program(self.random)
        self.graph = graph_of(self.program, self.random)
        self.expected = Expected(self.program)
        self.mended = Reference(self.program.mended()).run()
        self.told: set[Key] = set()
        self.deaths = self.crashes = self.cancels = self.tasks = 0
        self._faults = True
        self._at_once: dict[Key, int] = {}

    def go(self) -> World:
        """Run, and resume until done, at last without faults; check the promises.

        Raises:
            AssertionError: One was not kept.
        """
        origin = ""
        for number in range(20):
            self._faults = number < _ROUNDS_WITH_FAULTS
            done = self._round(origin)
            self._check_left()
            if done.status is Status.SUCCEEDED:
                break
            if done.run_id:
                origin = done.run_id
            assert number < _ROUNDS_WITH_FAULTS + 1, f"no end without faults: {done}"
        self._check_answer(done.run_id)
        return self

    # --- one round ---

    def _round(self, origin: str) -> Round:
        loop = FakeClockLoop()
        self._broken: list[AssertionError] = []
        crash_at = self.random.randint(1, 60) if self._faults and self.random.random() < 0.6 else -1
        disk = Disk(loop, self.random, crash_at)

        def stop(_: object) -> None:
            loop.stop()

        try:
            run_id = self.store.create_run("Simulated")
            main = loop.create_task(self._run(loop, disk, run_id, origin))
            main.add_done_callback(stop)
            loop.call_later(_TOO_LONG, self._break, AssertionError("the run does not end"))
            loop.run_forever()
            for error in self._broken:
                raise error
            if not disk.crashed:
                return Round(run_id, main.result())
            self.crashes += 1
            main.remove_done_callback(stop)
            left = asyncio.all_tasks(loop)
            for task in left:
                task.cancel()
            disk.release()
            loop.run_until_complete(asyncio.wait(left))
        finally:
            loop.close()
        begun = any(True for _ in self._records(run_id))
        return Round(run_id if begun else "", None)

    async def _run(
        self, loop: FakeClockLoop, disk: Disk, run_id: str, origin: str
    ) -> Status | None:
        size, grace = self.random.randint(1, 4), 1.0
        finish = self.random.random() < 0.3
        services = RunServices(
            disk=disk, syncs=disk, grace_seconds=grace, sync_seconds=0.5, finish_running=finish
        )
        dispatcher = Dispatcher(
            services,
            lambda listener: SimulatedExecutor(
                listener,
                self._play,
                size=size,
                deaf=lambda: self.random.choice([0.0, 0.2, 5.0]),
            ),
        )
        driver = self._driver(dispatcher, services, run_id, origin)
        self._at_once.clear()
        assert isinstance(driver.channel, Channel)
        self._hear(driver.channel, disk)
        driver.begin(self._first)
        dispatcher.enter(driver)
        if self._faults and self.random.random() < 0.2:
            wait = self.random.choice([0.0, 0.001, 0.01, 0.1, 1.0])
            loop.call_later(wait, driver.cancel, "a simulated wish")
            self.cancels += 1
        await driver.drive()
        dispatcher.close()
        if disk.crashed:
            return None
        assert driver.error is None, repr(driver.error)
        assert driver.finish is not None
        return driver.finish.status

    def _driver(
        self, dispatcher: Dispatcher, services: RunServices, run_id: str, origin: str
    ) -> RunDriver:
        stored = self.store.run("Simulated", run_id)
        taken = None
        if origin:
            taken = OriginRun(self.store.run("Simulated", origin))
            taken.choose(self.graph, None)
        moment = from_microseconds(int(run_id))
        event = RunStarted(
            flow="Simulated",
            run_id=run_id,
            seq=1,
            time=moment,
            graph=self.graph.to_data(),
            origin_run_id=origin or None,
        )
        self._first = pack_event(event)
        journal = stored.begin_journal()
        journal.write(frame(self._first))
        nowhere = ProgramEnvironment("", (), {})
        identity = RunIdentity(1, stored, (), int(run_id), nowhere)
        channel = Channel(stored, len(HEADER))
        self._journal = journal.path
        return RunDriver(identity, self.graph, journal, channel, dispatcher, services, taken)

    def _hear(self, channel: Channel, disk: Disk) -> None:
        """Be told of what is published, as a subscriber is."""
        publish = channel.publish

        def listen(batch: Sequence[Any], upto: int) -> None:
            for event in EventFilter[Event]().pick(batch):
                if isinstance(event, events.TaskSucceeded | events.TaskCloned):
                    self.told.add((event.step, event.path))
                if isinstance(event, events.TaskSucceeded | events.TaskFailed):
                    self._at_once.pop((event.step, event.path), None)
            publish(batch, upto)

        vars(channel)["publish"] = listen

    # --- tasks ---

    def _play(self, order: StartTask) -> Act:
        """What comes of a task that a worker begins."""
        try:
            return self._begin(order)
        except AssertionError as error:  # it would be lost in a callback of the loop
            self._break(error)
            return Act(dies=True)

    def _break(self, error: AssertionError) -> None:
        """A promise was not kept: this ends the world."""
        self._broken.append(error)
        asyncio.get_running_loop().stop()

    def _begin(self, order: StartTask) -> Act:
        """The same, if it is one that is to be run now."""
        inputs, split = self._inputs(order), self._split(order)
        key = self.expected.key(order.step, order.path, inputs, split)
        self.tasks += 1
        assert key not in self.told, f"{key} was announced, and is run again"
        assert key not in self._at_once, f"{key} is run twice at once"
        self._at_once[key] = order.key.attempt
        step = self.expected.steps[order.step]
        width = self.expected.widths.get(order.step)
        act = Act(
            self.random.choice(_SECONDS if self._faults else _SECONDS[:-1]),
            width,
            choice=self.expected.choices.get(key, ""),
            yields=width or 0 if order.step in self.expected.streams else 0,
            is_async=step.is_async,
        )
        if self._faults and self.random.random() < 0.03:
            self.deaths += 1
            return replace(act, dies=True)
        if order.caught or not self._fails(step, key, order.key.attempt):
            return act
        last = step.catches and order.key.attempt >= step.retries
        caught = last and self.random.random() < 0.8  # else its artifacts cannot be kept
        half = act.yields // 2
        return replace(act, error=step.name, caught=caught, fanout=None, choice="", yields=half)

    def _fails(self, step: Step, key: Key, attempt: int) -> bool:
        ends_well = self._faults or step.catches or step.failing <= step.retries
        around = indexes(key[1])
        return ends_well and step.fails_at(around[-1] if around else None, attempt)

    def _inputs(self, order: StartTask) -> list[Key]:
        """The tasks whose results a worker would find where the order says."""
        offsets = array("Q", order.inputs)
        if order.awaits:  # those of an early join, in the order in which they came
            arrived = zip(offsets[2::3], offsets[::3], strict=True)
            offsets = array("Q", [at for _, at in sorted(arrived)])
        return [(event.step, event.path) for event in self._results(offsets)]

    def _split(self, order: StartTask) -> Key | None:
        """The task that opened the innermost foreach around; each item is where the order says."""
        results = self._results([at for at in order.stack if at])  # one that yields has no end
        for event, index in zip(results, order.path, strict=False):
            if isinstance(event, events.TaskYielded):
                assert event.index <= index < event.index + event.count, "it gets another item"
        return (results[-1].step, results[-1].path) if results else None

    def _results(self, offsets: Sequence[int]) -> list[HandingOn]:
        with JournalReader(self._journal) as reader:
            found = []
            for offset in offsets:
                (event,) = unpack_events(reader.read_one(offset), "Simulated", "1")
                if isinstance(event, HandingOn):
                    found.append(event)
            return found

    # --- promises ---

    def _records(self, run_id: str) -> Iterator[events.Event]:
        with self.store.run("Simulated", run_id).open_journal() as reader:
            for _, record, _ in reader.read_from(len(HEADER)):
                yield from unpack_events(record, "Simulated", run_id)

    def _check_left(self) -> None:
        """What was told is in a journal; events are numbered without a gap; nothing is damaged."""
        kept = set()
        for run_id in self.store.runs("Simulated"):
            for number, event in enumerate(self._records(run_id), 1):
                assert event.seq == number
                if isinstance(event, events.TaskSucceeded | events.TaskCloned):
                    kept.add((event.step, event.path))
            self._check_index(run_id)
        assert self.told <= kept, f"announced and in no journal: {self.told - kept}"
        damage = verify.verify(self.store, "Simulated").damage
        assert not damage, damage

    def _check_index(self, run_id: str) -> None:
        """What the engine wrote beside a journal is what a reader makes of the journal."""
        stored = self.store.run("Simulated", run_id)
        written = Summary.read(stored)
        if written is None:
            return
        with stored.open_journal() as reader:
            (first,) = unpack_events(reader.read_one(len(HEADER)), "Simulated", run_id)
            assert isinstance(first, RunStarted)
            replay = Replay(first, Graph.from_data(first.graph))
            for batch in reader.read_batches(len(HEADER)):
                replay.handle_all(batch.places, batch.payloads)
        table = replay.index.table.dump()
        assert replay.summary()._replace(index_checksum=crc32(table)) == written
        assert stored.read_file(INDEX, most=len(table) + 1) == table

    def _check_answer(self, run_id: str) -> None:
        """Every task is in the last run, once."""
        ended = [
            (event.step, event.path)
            for event in self._records(run_id)
            if isinstance(event, events.TaskSucceeded | events.TaskCloned)
        ]
        assert len(ended) == len(set(ended))
        assert set(ended) == set(self.mended.tasks)
        assert set(ended) <= self.told, "subscribers were not told of all"


def world(seed: int, folder: Path) -> World:
    """Make a world in a store of its own, and let it go.

    Raises:
        AssertionError: A promise was not kept; the message tells how to have it again.
    """
    try:
        return World(seed, LocalStore.open(folder / str(seed), create=True)).go()
    except Exception as error:
        again = f"python -m tests.durability.chaos.simulation {seed}"
        message = f"seed {seed}: {type(error).__name__}: {error}; again: {again}"
        raise AssertionError(message) from error


def check_worlds(seeds: Sequence[int]) -> str:
    """Check some worlds; what happened in them.

    Raises:
        AssertionError: A promise was not kept.
    """
    tasks = deaths = crashes = cancels = 0
    with tempfile.TemporaryDirectory(prefix="asyncflow-worlds-", dir=_memory()) as folder:
        for seed in seeds:
            made = world(seed, Path(folder))
            tasks, deaths = tasks + made.tasks, deaths + made.deaths
            crashes, cancels = crashes + made.crashes, cancels + made.cancels
    return (
        f"{len(seeds):,} worlds: {tasks:,} attempts, {deaths:,} workers died, {crashes:,} engines "
        f"crashed, {cancels:,} runs cancelled"
    )


def _memory() -> str | None:
    """A folder in memory where there is one: thousands of stores are made."""
    place = "/dev/shm"  # noqa: S108 - a folder of our own is made in it
    return place if os.access(place, os.W_OK) else None


def everything(count: int = 3000) -> str:
    """Many worlds, others each time."""
    first = int(time.time())
    return check_worlds(range(first, first + count))


def main() -> None:
    """Have the worlds of these seeds again."""
    print(check_worlds([int(seed) for seed in sys.argv[1:]]))


if __name__ == "__main__":
    main()
